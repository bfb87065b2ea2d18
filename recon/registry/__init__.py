"""The one place where names become objects: operators, samplers, solvers, priors, recipes."""
