"""Training of priors and autoencoders: one loop, what it optimises, and what it shows the network."""
