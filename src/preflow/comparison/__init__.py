"""Finished runs compared by what their evaluations kept: measures, paired differences, groups, and a page for people.

Everything here reads kept rows and figures and runs no model; where runs are found belongs to ``tasks.tracking``.
"""
