"""The stages that make new preference pairs from a model's own answers: sample, judge, pair.

The order of work within such a stage belongs here; how pairs are chosen belongs to ``preflow.on_policy``.
"""
