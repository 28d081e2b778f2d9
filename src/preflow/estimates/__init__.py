"""What a run will need: arithmetic, memory, steps, from sizes and lengths alone.

Estimates decide no number of a result; what is measured belongs to the stage that measures it.
"""
