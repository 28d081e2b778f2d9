"""Users' files, whatever their format, to rows as they stand there.

Formats, places and the reading of bytes belong here; what a row means does not (``data/conversion.py``).
"""
