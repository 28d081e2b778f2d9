"""What ``preflow plan`` reads before it can estimate: devices and the lengths of rows.

The estimates themselves belong to ``preflow.estimates``.
"""
