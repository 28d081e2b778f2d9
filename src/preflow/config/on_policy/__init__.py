"""Settings of training data that a model of the recipe makes itself.

How such data are sampled, judged and turned into pairs belongs here; settings of a judge belong to ``config.judge``.
"""
