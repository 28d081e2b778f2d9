"""What runs, in order: ``two_stage.py`` is the whole chain on one screen.

Flows and the command line belong here; what one stage does belongs to ``tasks`` and ``preflow.stages``.

Importing this package puts all state under ``PREFLOW_HOME`` and switches telemetry off, which must happen before
Prefect or MLflow are imported.
"""

from preflow.environment import activate

activate()
