"""Rows to token ids: chat templates, masks, truncation.

The one place that renders a template and tokenizes; loading a tokenizer belongs to ``models``.
"""
