"""Devices that plans are made for."""

from typing import Any

import pytest
import torch

from flows.planning import devices
from preflow.config import Recipe


def test_a_rate_is_measured_in_the_recipes_compute_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.dtype] = []
    ones = torch.ones

    def recorded(*sizes: int, **options: Any) -> torch.Tensor:
        made.append(options["dtype"])
        return ones(8, 8, **options)

    monkeypatch.setattr(torch, "ones", recorded)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        recipe = Recipe.model_validate({"model_name": "m", "bf16": bf16})
        assert devices.measured_rate(devices.on_cpu(recipe)) > 0
        assert made[-1] == dtype


def test_a_plan_leaves_eight_percent_of_a_devices_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the one found as of one that is only named."""
    recipe = Recipe.model_validate({"model_name": "m"})
    monkeypatch.setattr(devices, "found_memory", lambda device: 50e9)
    assert devices.device_for(recipe, None, 1.0, devices.DeviceChoice.CPU).available == pytest.approx(46e9)
    assert devices.device_for(recipe, 50, 1.0).available == pytest.approx(46e9)
