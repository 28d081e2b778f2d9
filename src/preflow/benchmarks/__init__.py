"""Benchmarks: tasks of lm-evaluation-harness, done by models that are in memory, and compared document by document.

The harness is an extra (``preflow[bench]``) that ``harness`` alone imports.
"""
