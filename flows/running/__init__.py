"""What a pipeline run needs around its stages: preparation, the terminal, the embedded server, the summary.

Stages do not belong here (``tasks``), nor does anything one command alone uses.
"""
