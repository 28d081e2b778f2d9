"""What can be measured of all rows together: copies, contradictions, leaks, cues that give the label away.

Comparisons over a whole set belong here; measures of a single row belong to ``rows``.
"""
