"""Programs that check and make documentation: the word check, generated pages, the README's tree.

Nothing that a run needs belongs here.
"""
