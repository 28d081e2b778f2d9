"""``preflow store show | prune``: the store of reference log-probs.

Also ``python -m preflow.stages.reference``.
"""

from preflow.logprobs.cli import app

__all__ = ["app"]
