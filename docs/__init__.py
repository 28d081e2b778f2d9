"""The documentation: hand-written pages, the glossary, and ``tools`` that make the pages drawn from the code.

What explains more than one module belongs here; what explains one belongs to its docstrings.
"""
