"""What other ways to align a model than DPO came to, as tables for the terminal, Prefect and MLflow.

What runs as a flow stays in ``flows`` itself.
"""
