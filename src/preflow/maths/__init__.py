"""Pure functions on tensors and floats: log-probabilities, divergences, intervals."""
