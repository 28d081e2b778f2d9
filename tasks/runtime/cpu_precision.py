"""A recipe's precision where it is certain without torch, whose import is a third of a cached run's time."""

import ctypes
import os
import sys
from pathlib import Path

from preflow.config import Recipe

#: Through one of these every GPU that torch calls ``cuda`` is reached: NVIDIA's, in a board or in WSL, and AMD's.
_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
#: Variables that may make products of float32 numbers coarser.
_SETTINGS = ("TORCH_ALLOW_TF32", "ONEDNN", "DNNL", "NVIDIA_TF32")
#: One of theirs that changes no number: how much compiled code oneDNN keeps.
_HARMLESS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def certain_label(recipe: Recipe) -> str | None:
    """What ``choose_precision(recipe).label()`` says, none where only torch can tell.

    It is certain where torch, not imported yet, can be under no setting, and neither a device file nor a driver's
    library leads to a GPU.
    """
    if (
        "torch" in sys.modules
        or any(name.startswith(_SETTINGS) for name in os.environ.keys() - {_HARMLESS})
        or _may_have_gpu()
    ):
        return None
    compute = "bfloat16" if recipe.bf16 is True else "float32"
    return f"cpu/{'float32' if recipe.tuning == 'full' else compute}/{compute}"


def _may_have_gpu() -> bool:
    if sys.platform != "linux" or any(True for name in _DEVICES for _ in Path("/dev").glob(name)):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
