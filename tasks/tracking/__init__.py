"""Everything that goes to MLflow or comes from it: runs, lineage, finished runs found again.

The only user of MLflow.
"""
