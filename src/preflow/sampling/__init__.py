"""Answers drawn from a model, fast and each with random numbers of its own: sampling, and the store of answers.

What is asked and what becomes of the answers belong to stages; greedy answers and KL to ``evaluation``.
"""
