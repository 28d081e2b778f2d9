"""The range test: few steps at few rates on the same pairs, the same choice every time, also after a kill."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import build
from preflow.logprobs.scored_pairs import ScoredPair, read_pairs
from preflow.observer import Silent
from preflow.specs import TuneSpec
from preflow.stages import tune as stage
from preflow.stages.tune import run_tune, shares
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for, write_pairs

OTHER = {"range_test_steps": 3, "range_test_pairs": 5, "range_test_kl": 2.0, "range_test_rates": [1e-3]}
FILES = ("choice.json", "metrics.json", "figures/range_test.png")


def spec_of(run: Run, **settings: Any) -> TuneSpec:
    rates = {"range_test_rates": [1e-4, 1e-2], "range_test_steps": 2, "range_test_pairs": 4, "range_test_kl": 1e3}
    recipe = recipe_for(run.base, dpo={**COMMON, "learning_rate": "auto", **rates, **settings})
    return TuneSpec(recipe=recipe, base=run.base, data=run.data, reference=run.reference, sft=run.sft)


@pytest.mark.slow
def test_the_choice_is_the_same_twice_and_after_a_kill(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(prepared)
    whole = build(tmp_path / "whole", lambda out: run_tune(spec, out, Silent()))
    own = stage._try
    done: list[float] = []

    def killed(*given: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(given[2])
        return own(*given)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_try", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed", lambda out: run_tune(spec, out, Silent()))
    resumed: list[float] = []

    def counted(*given: Any) -> Any:
        resumed.append(given[2])
        return own(*given)

    monkeypatch.setattr(stage, "_try", counted)
    again = build(tmp_path / "killed", lambda out: run_tune(spec, out, Silent()))
    assert (done, resumed) == ([1e-4], [1e-2])
    assert again.digest == whole.digest
    for name in FILES:
        assert again.file(name).read_bytes() == whole.file(name).read_bytes()
    choice = whole.load("choice.json")
    low, high = choice["tried"]
    assert 0 < low["kl"] < high["kl"], "a larger rate goes further"
    assert choice["learning_rate"] in (1e-4, 1e-2)
    assert json.loads(whole.file("metrics.json").read_text())["tune/learning_rate"] == choice["learning_rate"]


@pytest.mark.slow
def test_rates_beyond_the_budget_are_not_tried_and_a_breakdown_is_no_error(prepared: Run, tmp_path: Path) -> None:
    spec = spec_of(prepared, range_test_rates=[1e-2, 1e9], range_test_kl=1e-9)
    tried = build(tmp_path / "a", lambda out: run_tune(spec, out, Silent())).load("choice.json")["tried"]
    assert [each["rate"] for each in tried] == [1e-2]
    spec = spec_of(prepared, range_test_rates=[1e18])
    choice = build(tmp_path / "b", lambda out: run_tune(spec, out, Silent())).load("choice.json")
    assert choice["tried"][0]["whole_kl"] is None
    assert choice["learning_rate"] == 1e17


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved_as_in_training(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = stage._try
    batches: list[tuple[int, int]] = []

    def fits_one_row(spec: TuneSpec, settings: Any, *rest: Any) -> Any:
        batches.append((settings.per_device_train_batch_size, settings.gradient_accumulation_steps))
        if settings.per_device_train_batch_size > 1:
            raise RuntimeError("CUDA out of memory.")
        return own(spec, settings, *rest)

    monkeypatch.setattr(stage, "_try", fits_one_row)
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "auto_find_batch_size": True}
    spec = spec_of(prepared, range_test_rates=[1e-4], **batch)
    build(tmp_path / "tuned", lambda out: run_tune(spec, out, Silent()))
    assert batches == [(2, 2), (1, 4)]


def test_no_prompt_is_both_trained_on_and_kept_aside(prepared: Run) -> None:
    pairs = [ScoredPair([number // 2], [1], [2], [0.0], [0.0], f"a:{number}") for number in range(60)]
    settings = spec_of(prepared, range_test_pairs=12).recipe.dpo
    assert settings is not None
    trained, aside = shares(pairs, settings)
    assert len(aside) == 12
    assert len(trained) == 2 * 4  # steps times the effective batch
    assert not {pair.prompt_ids[0] for pair in trained} & {pair.prompt_ids[0] for pair in aside}
    assert shares(pairs[::-1], settings)[1] != []


@pytest.mark.slow
def test_validation_pairs_are_measured_where_there_are_any(prepared: Run, tmp_path: Path) -> None:
    def with_validation(out: Path) -> None:
        shutil.copytree(prepared.reference.path, out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        write_pairs(out / "validation.parquet", list(read_pairs(out / "train.parquet"))[:3])

    reference = build(tmp_path / "reference", with_validation)
    spec = spec_of(prepared, range_test_rates=[1e-4]).model_copy(update={"reference": reference})
    choice = build(tmp_path / "choice", lambda out: run_tune(spec, out, Silent())).load("choice.json")
    assert choice["pairs_aside"] == 3
    assert spec.inputs() != spec_of(prepared, range_test_rates=[1e-4]).inputs()


def test_the_choice_does_not_depend_on_the_rate_that_the_recipe_has(prepared: Run) -> None:
    first, second = spec_of(prepared), spec_of(prepared, learning_rate=3e-4)
    assert first.options() == second.options()
    assert first.options() != spec_of(prepared, range_test_steps=3).options()
    assert first.options() != spec_of(prepared, beta=0.3).options()
    same = [spec.recipe.identity_settings("dpo") for spec in (second, spec_of(prepared, learning_rate=3e-4, **OTHER))]
    assert same[0] == same[1], "what chose a rate changes no weights, the rate does"
