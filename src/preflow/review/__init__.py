"""Blinded comparison of two models' answers by people: the questions, their wording, and what answers come to.

No model runs here, and nothing of MLflow is known: where questions are shown and answers kept is the pipeline's affair.
"""
