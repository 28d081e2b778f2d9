"""Whether a finished run is still what it was: files, inputs, and numbers computed anew from kept rows.

Nothing here changes or repairs anything; what MLflow records is given by ``tasks.tracking``.
"""
