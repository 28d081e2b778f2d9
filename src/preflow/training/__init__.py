"""The training loop that both training stages share, on TRL's trainers.

Batching, checkpoints and numerical checks belong here; what only DPO needs belongs to ``dpo``.
"""
