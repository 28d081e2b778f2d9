"""The GPU check: tests, speed, memory and estimates on a real GPU, in one short go (``bash bench/gpu_check.sh``).

Each part is a module that gives its figures line by line; what counts as good is in ``targets.py``.
"""

import os

# Asking whether there is a GPU must not begin to use it, or no process could be copied from the one that asks.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
