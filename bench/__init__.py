"""Benchmarks: each module runs alone (``python -m bench.NAME``) and prints one JSON line last.

Measurements of speed and memory belong here; proofs of correctness belong to ``tests``.
"""
