"""What several jobs need: their settings, their inputs, and slices sent through the network."""
