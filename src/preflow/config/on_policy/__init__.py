"""Settings of training data that a model of the recipe makes itself.

How such data are sampled, judged and turned into pairs belongs here; a judge's settings to ``config.evaluation``.
"""
