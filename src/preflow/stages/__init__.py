"""The stages: each one function, a specification in, an artifact out.

The order of work within a stage belongs here; the work itself belongs to the packages below, the order of stages to
``flows``.
"""
