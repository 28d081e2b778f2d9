"""Subcommands of ``preflow`` for registered models: which one is the champion, why, and how that is undone.

Decisions themselves belong to ``tasks.tracking.registry``.
"""
