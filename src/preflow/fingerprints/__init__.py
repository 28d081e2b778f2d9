"""Digests of files, folders, values and source code.

How something is digested belongs here; what a stage's identity is made of belongs to ``specs`` and ``tasks.runtime``.
"""
