"""Preflow: demonstrations and preference pairs in, an aligned and evaluated language model out.

The library knows no Prefect, no MLflow and no Great Expectations; the packages ``flows``, ``tasks`` and
``expectations`` beside it do. Inside, imports go one way::

    stages -> data | models -> maths -> artifacts -> config | errors | home | observer
"""

import time

__version__ = "0.1.0"
#: When this process began with Preflow, nanoseconds since the epoch.
STARTED_NS = time.time_ns()
