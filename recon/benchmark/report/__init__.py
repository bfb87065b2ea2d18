"""The report of a benchmark: rows brought together, then tables, figures and one page."""
