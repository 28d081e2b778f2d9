"""Models compared on held-out rows: preferences, rewards, divergence, samples, figures.

Measures of finished models belong here; what is measured while training belongs to ``dpo``.
"""
