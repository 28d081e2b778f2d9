"""The precision that is found without torch is the one that torch finds."""

import itertools
import json
import os
import subprocess
import sys

import pytest

from preflow.config import Recipe
from preflow.environment import DEFAULTS
from preflow.models.precision import choose_precision
from tasks.runtime import cpu_precision
from tasks.runtime.cpu_precision import certain_label

RECIPES = [
    {"strategy": "sft", "model_name": "any", "bf16": bf16, "tuning": tuning}
    for bf16, tuning in itertools.product(("auto", True, False), ("lora", "full"))
]
#: Says the label without torch and then the one with it, in a process that has not imported torch before.
BOTH = f"""
import json, sys
from preflow.config import Recipe
from tasks.runtime.cpu_precision import certain_label
recipes = [Recipe(**given) for given in {RECIPES}]
without = [certain_label(recipe) for recipe in recipes]
assert "torch" not in sys.modules
from preflow.models.precision import choose_precision
print(json.dumps([without, [choose_precision(recipe).label() for recipe in recipes]]))
"""


def both(**environment: str) -> tuple[list[str | None], list[str]]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "ONEDNN", "DNNL"))}
    done = subprocess.run(
        [sys.executable, "-c", BOTH], env={**own, **environment}, capture_output=True, text=True, check=True
    )
    without, with_torch = json.loads(done.stdout.splitlines()[-1])
    return without, with_torch


@pytest.mark.slow
def test_both_labels_agree_for_every_recipe() -> None:
    """Also under the one setting of oneDNN that Preflow makes itself."""
    without, with_torch = both(ONEDNN_PRIMITIVE_CACHE_CAPACITY=DEFAULTS["ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
    assert without in (with_torch, [None] * len(RECIPES)), "none of them where there is a GPU"


@pytest.mark.slow
def test_a_setting_that_makes_numbers_coarser_asks_torch() -> None:
    without, with_torch = both(ONEDNN_DEFAULT_FPMATH_MODE="BF16")
    assert without == [None] * len(RECIPES)
    assert all("ONEDNN_DEFAULT_FPMATH_MODE=BF16" in label for label in with_torch)


def test_torch_that_is_imported_is_asked() -> None:
    recipe = Recipe(strategy="sft", model_name="any")
    assert choose_precision(recipe).label()
    assert certain_label(recipe) is None


def test_a_device_file_asks_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/dev/null`` stands for one."""
    monkeypatch.setattr(cpu_precision, "_DEVICES", ("nul*",))
    assert cpu_precision._may_have_gpu()
    monkeypatch.setattr(cpu_precision, "_DEVICES", ("no such device*",))
    monkeypatch.setattr("ctypes.CDLL", lambda name: None)
    assert cpu_precision._may_have_gpu(), "a driver's library alone asks too"
