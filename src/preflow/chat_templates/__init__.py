"""Chat templates that a recipe can name, and how a recipe's ``chat_template`` becomes Jinja text.

Templates of published families come from TRL, which keeps their texts; those here are Preflow's own. Rendering belongs
to ``preflow.data.tokens``.
"""
