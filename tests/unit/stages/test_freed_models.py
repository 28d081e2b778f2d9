"""No stage's step holds the model of an earlier one: on a GPU each would take memory of its own."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import build
from preflow.models import loading
from preflow.observer import Silent
from preflow.specs import SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.sft import run_sft
from tests.fixtures.prepared_run import Run


@pytest.mark.slow
def test_every_model_is_gone_before_the_next_is_loaded(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT's, the two of the start-up checks and the policy's; Python's collection of cycles is off."""
    made: list[Any] = []
    alive: list[int] = []
    load = loading.load_weights

    def watched(*args: Any, **kwargs: Any) -> Any:
        alive.append(sum(model() is not None for model in made))
        model = load(*args, **kwargs)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(loading, "load_weights", watched)
    gc.disable()
    try:
        asked = SftSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data)
        build(tmp_path / "sft", lambda out: run_sft(asked, out, Silent()))
        build(tmp_path / "dpo", lambda out: run_dpo(prepared.dpo(), out, Silent()))
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]
