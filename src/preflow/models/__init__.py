"""Loading, naming, saving and running models and adapters.

What works on one model's weights or forward pass belongs here; what trains, evaluates or stores its results does not.
"""
