"""Subcommands that make training data of the model's own answers.

A subcommand is one module here, as in ``flows.commands``.
"""
