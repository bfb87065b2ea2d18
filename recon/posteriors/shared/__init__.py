"""What several samplers need: data steps, Jacobians, loops of their own, operator norms."""
