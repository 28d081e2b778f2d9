"""Reference log-probs: token ids, the store that keeps them, filling it.

Whatever stores, finds or fills log-probs belongs here; the forward that computes them belongs to ``models``.
"""
