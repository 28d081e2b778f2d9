"""Subcommands that work with a Prefect or an MLflow server: deployments, workers, interfaces, their health.

As above: arguments, messages and exit codes alone.
"""
