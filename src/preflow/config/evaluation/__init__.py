"""Settings of what is measured of finished models, by models, people and benchmarks, and of the decision after it.

Each section of a recipe has its module; how anything is measured belongs to ``evaluation``, ``judges`` and ``review``.
"""
