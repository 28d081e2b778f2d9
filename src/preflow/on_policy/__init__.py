"""Pairs of answers that a model gave itself: which prompts may be answered, which answers count, what becomes a pair.

Pure: nothing here samples or judges.
"""
