"""Finished models in MLflow's registry: versions that answer chat messages, aliases, and the decisions that move them.

What a decision rests on does not belong here (``preflow.promotion``), nor how people are asked (``flows``).
"""
