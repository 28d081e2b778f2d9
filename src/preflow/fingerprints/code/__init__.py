"""Digests of code: of a function and all that it reaches.

How code is digested belongs here, and which modules never count; where a stage begins belongs to ``tasks.runtime``.
"""

from preflow.fingerprints.code.digests import code_digest
from preflow.fingerprints.code.graph import CodeGraph
from preflow.fingerprints.code.sources import SourceTree, imported_tree

__all__ = ["CodeGraph", "SourceTree", "code_digest", "imported_tree"]
