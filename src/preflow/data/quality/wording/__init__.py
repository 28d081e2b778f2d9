"""Whether two texts say the same: English word tables, paraphrases, typing errors.

Comparisons of two given texts belong here; finding the texts to compare belongs to ``sets``.
"""
