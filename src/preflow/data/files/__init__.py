"""Users' files, whatever their format, to rows as it holds them.

Formats, places and the reading of bytes belong here; what a row means does not (``data/conversion.py``).
"""
