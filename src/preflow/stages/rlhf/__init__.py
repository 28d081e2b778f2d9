"""The stages of reinforcement learning from preference pairs.

The order of work within such a stage belongs here; how a reward model is made belongs to ``preflow.rlhf``.
"""
