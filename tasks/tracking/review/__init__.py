"""Human review in MLflow: queues of blinded comparisons in its Review tab, and what was collected, with the run.

What is asked and what answers come to is decided in ``preflow.review``; the key that unblinds them never comes here.
"""
