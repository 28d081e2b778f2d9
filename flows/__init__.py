"""What runs, in order: ``two_stage.py`` is the whole chain on one screen.

Importing this package puts all state under ``PREFLOW_HOME`` and switches telemetry off, which must happen before
Prefect or MLflow are imported.
"""

from preflow.environment import activate

activate()
