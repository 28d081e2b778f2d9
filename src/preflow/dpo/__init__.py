"""Direct Preference Optimization: its trainer, the checks before its first step, the KL monitor.

What only the DPO stage needs belongs here; what SFT shares belongs to ``training``.
"""
