"""What several samplers share: data steps, Jacobians, loops of their own, operator norms, signatures."""
