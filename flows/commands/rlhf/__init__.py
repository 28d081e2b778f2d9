"""Subcommands of reinforcement learning from preference pairs.

A subcommand is one module here, as in ``flows.commands``.
"""
