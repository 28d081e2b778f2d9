"""Overrides on the command line, and what a flow's start imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.running.terminal import parse_overrides
from preflow.errors import ConfigError


def test_overrides_are_names_and_values() -> None:
    assert parse_overrides(["dpo.beta=0.2", "name=a=b"]) == {"dpo.beta": "0.2", "name": "a=b"}
    for wrong in ("dpo.beta", "=0.2"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            parse_overrides([wrong])


@pytest.mark.slow
def test_a_flow_starts_without_what_only_training_needs() -> None:
    """A run of which every stage is cached ends in seconds: it must not wait for a trainer to be imported."""
    heavy = ("transformers", "trl", "peft", "bitsandbytes", "datasets", "mlflow", "great_expectations", "matplotlib")
    code = f"import sys, flows.two_stage; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[4]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip().splitlines()[-1] == "[]"
