"""Whether a challenger becomes the champion: what the measures of both say, at the level that this look may spend.

Measuring does not belong here (``stages``), nor does moving an alias (``tasks.tracking``).
"""
