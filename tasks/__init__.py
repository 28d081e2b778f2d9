"""One thin Prefect task per stage, and what they share: cache keys, tracking, reporting.

What ties the library to Prefect and MLflow belongs here; nothing that computes a result.

Importing this package puts all state under ``PREFLOW_HOME``, makes that folder, and switches telemetry off, which must
happen before Prefect or MLflow are imported.
"""

from preflow.environment import make_home

make_home()
