"""Pure functions on tensors and floats: log-probabilities, divergences, intervals.

Formulas with a source belong here; nothing that reads a file, a setting or a model.
"""
