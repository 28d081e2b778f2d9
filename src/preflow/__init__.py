"""The library: demonstrations and preference pairs in, an aligned and evaluated language model out.

What computes a result belongs here; Prefect, MLflow and Great Expectations do not (``tasks``, ``flows`` and
``expectations`` use them). Which package may import which is held by the contracts in ``pyproject.toml``.
"""

import time

__version__ = "0.1.0"
#: When this process began with Preflow, nanoseconds since the epoch.
STARTED_NS = time.time_ns()
