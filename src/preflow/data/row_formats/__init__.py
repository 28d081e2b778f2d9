"""Every way in which public files write a demonstration or a preference pair, to the internal rows.

Columns, turn keys, roles and what a row means belong here; reading bytes does not (``data/files``).
"""
