"""Data validation: which rows and sets may pass, the only user of Great Expectations.

Thresholds, verdicts and their report belong here; what is measured belongs to ``preflow.data.quality``.

Importing this package sets the environment of a run first.
"""

from preflow.environment import activate

activate()
