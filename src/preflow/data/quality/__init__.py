"""What data validation measures, on single rows and on whole sets.

Measures alone belong here; which of them lets a row pass is decided in ``expectations``.
"""
