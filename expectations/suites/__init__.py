"""The suites of Great Expectations: which measures let a row or a set pass.

Measuring belongs to ``preflow.data.quality``; here are thresholds and their judgement alone.
"""
