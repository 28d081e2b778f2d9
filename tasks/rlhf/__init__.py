"""One thin Prefect task per stage of reinforcement learning from preference pairs.

What such a stage computes belongs to ``preflow.stages.rlhf``.
"""
