"""The report of a validation: summary, page, details of rows.

Nothing here decides anything.
"""
