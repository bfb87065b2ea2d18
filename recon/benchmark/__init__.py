"""Methods compared on one set of problems: what is run, what it is scored by, and how that is reported."""
