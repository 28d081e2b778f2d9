"""Reward models: how one starts, how it is trained with TRL's RewardTrainer, what it gives held-out pairs.

The order of work belongs to ``preflow.stages.rlhf``; a finished reward model is read by ``preflow.judges``.
"""
