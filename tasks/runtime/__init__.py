"""What surrounds every stage: its identity, its cache, its processes, its progress.

What knows MLflow belongs to ``tracking``; what a stage computes belongs to ``preflow.stages``.
"""
