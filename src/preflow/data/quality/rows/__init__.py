"""What can be measured of one row, chunk by chunk.

A measure that needs no other row belongs here; one that compares rows belongs to ``sets``.
"""
