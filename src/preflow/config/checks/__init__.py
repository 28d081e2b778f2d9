"""Checks of a whole recipe against what is installed and the files that it names, and what experience advises against.

What a single setting may be, and what two settings say together, their own classes check.
"""
