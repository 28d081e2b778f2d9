"""Rows from users' files to token ids: reading, checking, splitting, rendering.

What a row is and how it becomes tokens belongs here; models and their forward passes do not.
"""
