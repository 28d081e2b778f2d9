"""RLOO on a reward model's rewards: proven start, KL 0, rewards that rise, a limit, the same bytes after a kill."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.config.checks.rlhf import require_rloo
from preflow.errors import (
    ConfigError,
    DataUnfitError,
    PolicyMismatchError,
    UnfitRewardModelError,
    WrongReferenceError,
)
from preflow.logprobs.scored_pairs import PairTable, read_pairs
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Silent
from preflow.rlhf.answer_rewards import AnswerRewards
from preflow.rlhf.reward_stopping import RewardStopping
from preflow.specs import ReferenceSpec, RlooSpec
from preflow.stages.reference import run_reference
from preflow.stages.rlhf import rloo as stage
from preflow.stages.rlhf.rloo import require_fit, run_rloo
from tests.fixtures.prepared_run import Run
from tests.unit.stages.rlhf.killed import KilledAt, KilledError
from tests.unit.stages.rlhf.rloo_support import SHORT, recipe, spec_of
from tests.unit.support import Notes


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_a_planted_reward_rises_on_held_out_prompts_from_a_start_whose_kl_is_zero(
    prepared: Run, judge: Artifact, tmp_path: Path
) -> None:
    long = {"max_steps": 30, "per_device_train_batch_size": 32, "gradient_accumulation_steps": 1, "beta": 1e-3}
    longer = {"max_completion_length": 24, "learning_rate": 2e-2}
    dpo = {"dataset": "-", "kl_limit": 1e3, "eval_steps": 0}
    spec = spec_of(prepared, judge, rloo={**long, **longer}, dpo=dpo)
    made = build(tmp_path / "made", lambda out: run_rloo(spec, out, Silent()))
    log, report = made.load("training.json"), made.load("report.json")
    first, step = log[0], log[1]
    assert (first["step"], first["eval_kl"], first["eval_chosen"]) == (0, 0.0, 0.0)
    assert step["step"] == 1
    assert step["kl_per_token"] == pytest.approx(0.0, abs=1e-6), "policy and reference are one model at step 1"
    held_out = report["held_out"]
    assert held_out["reward_gain"]["low"] > 0
    assert held_out["reward"] - held_out["reward_before"] == pytest.approx(held_out["reward_gain"]["value"])
    assert 0 < made.load("metrics.json")["rloo/eval_kl"] < 1e3
    assert report["rows"] == {"prompts": 24, "no_room": 0, "left_out_per_pass": 0}, "8 prompts a step"
    names = {path.name for path in made.file("model").iterdir()}
    assert {"adapter_model.safetensors", "generation_config.json", "preflow.json"} <= names
    assert not made.file("model/ref").exists(), "TRL's copy of the adapter is not part of the model"
    load_policy(prepared.base, made.file("model"), spec.recipe, choose_precision(spec.recipe))


@pytest.mark.slow
def test_resumed_it_is_the_same_byte_for_byte(prepared: Run, judge: Artifact, tmp_path: Path) -> None:
    """Checkpoints every 2 steps (support.COMMON), and measurements every 2; killed at step 3 of 4."""
    dpo = {"dataset": "-", "save_steps": 2, "eval_steps": 2, "eval_pairs": 4}
    spec = spec_of(prepared, judge, dpo=dpo)
    whole = build(tmp_path / "whole", lambda out: run_rloo(spec, out, Silent()))
    with pytest.raises(KilledError):
        build(tmp_path / "killed", lambda out: run_rloo(spec, out, KilledAt(3)))
    resumed = build(tmp_path / "killed", lambda out: run_rloo(spec, out, Silent()))
    assert [entry["step"] for entry in whole.load("training.json") if "eval_kl" in entry] == [0, 2, 4]
    assert resumed.digest == whole.digest


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_the_best_weights_that_no_kill_can_return_to_are_removed(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 5 measurements is better than the one before, and no checkpoint was written."""
    best: list[int] = []

    def rising(self: RewardStopping, state: Any) -> int:
        return max(int(entry["step"]) for entry in state.log_history if "eval_kl" in entry)

    def count(self: RewardStopping, state: Any) -> dict[str, float]:
        best.extend(sorted(self._kept()))
        return {}

    monkeypatch.setattr(RewardStopping, "_best", rising)
    monkeypatch.setattr(RewardStopping, "finish", count)
    dpo = {"dataset": "-", "eval_steps": 1, "eval_pairs": 2, "save_steps": 100, "kl_limit": 1e3}
    spec = spec_of(prepared, judge, dpo=dpo, rloo={"max_steps": 5, "eval_prompts": 2})
    build(tmp_path / "made", lambda out: run_rloo(spec, out, Silent()))
    assert best == [0, 4, 5], "the start, and what a kill during the last write would go back to"


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_beyond_the_kl_limit_it_stops_and_goes_back(prepared: Run, judge: Artifact, tmp_path: Path) -> None:
    dpo = {"dataset": "-", "kl_limit": 1e-6, "eval_steps": 1, "eval_pairs": 4}
    spec, notes = spec_of(prepared, judge, dpo=dpo), Notes()
    made = build(tmp_path / "made", lambda out: run_rloo(spec, out, notes))
    metrics = made.load("metrics.json")
    assert (metrics["rloo/stopped_at_step"], metrics["rloo/kept_step"]) == (1, 0)
    assert made.load("report.json")["held_out"]["reward_gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert any("above dpo.kl_limit 1e-06" in said for said in notes.messages)
    kept, start = (folder / "adapter_model.safetensors" for folder in (made.file("model"), prepared.sft.file("model")))
    assert kept.read_bytes() == start.read_bytes()


def test_a_reward_model_no_better_than_chance_is_refused_before_anything_is_loaded(
    prepared: Run, tmp_path: Path
) -> None:
    def coin(out: Path) -> None:
        accuracy = {"value": 0.62, "low": 0.5, "high": 0.73}
        write_json(out / "report.json", {"held_out": {"accuracy": accuracy, "pairs": 60}})

    unfit = build(tmp_path / "unfit", coin)
    with pytest.raises(UnfitRewardModelError, match=r"0\.620 \[0\.500, 0\.730\] of 60 held-out pairs"):
        run_rloo(spec_of(prepared, unfit), tmp_path / "out", Silent())


@pytest.mark.slow
def test_a_fit_one_passes(judge: Artifact) -> None:
    require_fit(judge)


def _shifted(model: Any, part: str) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name and "lora_B" in name:
                parameter.add_(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "error"), [(".ref.", WrongReferenceError), (".default.", PolicyMismatchError)])
def test_a_policy_or_reference_that_is_another_model_is_refused_by_name(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: type[Exception]
) -> None:
    own: Callable[..., Any] = vars(stage)["make_rloo_trainer"]

    def spoilt(*given: Any) -> Any:
        trainer = own(*given)
        _shifted(trainer.model, part)
        return trainer

    monkeypatch.setattr(stage, "make_rloo_trainer", spoilt)
    with pytest.raises(error):
        run_rloo(spec_of(prepared, judge), tmp_path / "out", Silent())


@pytest.mark.slow
def test_an_answer_without_an_end_is_worth_the_penalty_less(prepared: Run, judge: Artifact) -> None:
    precision = choose_precision(prepared.recipe)
    tokenizer: Any = load_tokenizer(prepared.base, prepared.recipe)
    end, folder = int(tokenizer.eos_token_id), judge.file("model")
    answered = [([5, 6, 7], [8, 9]), ([5, 6, 7], [8, end])]
    plain, taken = (AnswerRewards(folder, [end], penalty, 2, precision)(answered) for penalty in (0.0, 2.5))
    assert taken - plain == pytest.approx([-2.5, 0.0])


@pytest.mark.slow
def test_prompts_without_room_for_an_answer_are_left_out_and_counted(
    prepared: Run, judge: Artifact, tmp_path: Path
) -> None:
    """The prompts of support.write_data grow by a word with their number modulo 4."""
    shortest = min(len(pair.prompt_ids) for pair in _pairs(prepared, "eval"))
    limit = shortest + int(SHORT["max_completion_length"])  # type: ignore[call-overload]
    made = build(
        tmp_path / "made",
        lambda out: run_rloo(spec_of(prepared, judge, max_seq_length=limit, rloo={"max_steps": 1}), out, Silent()),
    )
    fitting = sum(len(pair.prompt_ids) <= shortest for pair in _pairs(prepared, "train"))
    assert 0 < fitting < 24
    rows = {"prompts": fitting, "no_room": 24 - fitting, "left_out_per_pass": fitting % 2}
    assert made.load("report.json")["rows"] == rows
    none = spec_of(prepared, judge, max_seq_length=limit - 1)
    with pytest.raises(DataUnfitError, match="no held-out prompt leaves room"):
        run_rloo(none, tmp_path / "none", Silent())


def _pairs(run: Run, split: str) -> PairTable:
    return read_pairs(run.reference.file(f"{split}.parquet"))


def test_fewer_prompts_than_a_step_takes_are_refused_before_a_model_is_loaded(
    prepared: Run, judge: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "prove_reference", None)
    spec = spec_of(prepared, judge, rloo={"per_device_train_batch_size": 20, "gradient_accumulation_steps": 5})
    with pytest.raises(DataUnfitError, match=r"there are 24 prompts, and a step takes 25 .* Lower rloo.per_device"):
        run_rloo(spec, tmp_path / "out", Silent())


@pytest.mark.slow
@pytest.mark.usefixtures("planted")
def test_prompts_that_fill_no_step_are_counted(prepared: Run, judge: Artifact, tmp_path: Path) -> None:
    """24 prompts in steps of 5 (20 answers, 4 to a prompt) are 4 steps a pass, and 4 prompts over."""
    changes = {"per_device_train_batch_size": 20, "gradient_accumulation_steps": 1, "max_steps": -1}
    spec, notes = spec_of(prepared, judge, rloo={**changes, "learning_rate": 1e-5}), Notes()
    made = build(tmp_path / "made", lambda out: run_rloo(spec, out, notes))
    assert made.load("report.json")["rows"] == {"prompts": 24, "no_room": 0, "left_out_per_pass": 4}
    assert made.load("metrics.json")["rloo/steps"] == 4
    assert any("each pass leaves out 4 that fill no step" in said for said in notes.messages)


def test_a_completion_as_long_as_a_row_is_refused_at_the_start() -> None:
    sections = {"sft": {"dataset": "d"}, "dpo": {"dataset": "d", "max_seq_length": 64}}
    given = Recipe.model_validate({"model_name": "m", **sections, "rloo": {"max_completion_length": 64}})
    with pytest.raises(ConfigError, match="leaves no token for a prompt"):
        require_rloo(given)
    require_rloo(given.model_copy(update={"rloo": given.rloo.model_copy(update={"max_completion_length": 63})}))


def test_a_step_holds_all_answers_of_its_prompts() -> None:
    with pytest.raises(ValueError, match="no multiple of num_generations 3"):
        Recipe.model_validate({"model_name": "m", "sft": {"dataset": "d"}, "rloo": {"num_generations": 3}})


@pytest.mark.slow
def test_full_weights_start_from_the_reference_that_trl_loads_again(
    prepared: Run, judge: Artifact, tmp_path: Path
) -> None:
    spec = _full_weights(prepared, judge, tmp_path, rloo={"max_steps": 1, "learning_rate": 1e-4})
    trained = build(tmp_path / "trained", lambda out: run_rloo(spec, out, Silent()))
    assert trained.file("model/model.safetensors").is_file()
    assert trained.load("report.json")["proof"]["reference_gap"] <= 1
    (first,) = [entry for entry in trained.load("training.json") if "kl_per_token" in entry]
    assert first["kl_per_token"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_full_weights_resumed_are_the_same_byte_for_byte(prepared: Run, judge: Artifact, tmp_path: Path) -> None:
    dpo = {"dataset": "-", "save_steps": 2, "eval_steps": 2, "eval_pairs": 4, "kl_limit": 1e3}
    spec = _full_weights(prepared, judge, tmp_path, dpo=dpo, rloo={"learning_rate": 1e-4})
    whole = build(tmp_path / "whole", lambda out: run_rloo(spec, out, Silent()))
    with pytest.raises(KilledError):
        build(tmp_path / "killed", lambda out: run_rloo(spec, out, KilledAt(3)))
    resumed = build(tmp_path / "killed", lambda out: run_rloo(spec, out, Silent()))
    assert whole.load("metrics.json")["rloo/steps"] == 4
    assert resumed.digest == whole.digest


def _full_weights(run: Run, judge: Artifact, folder: Path, **changes: Any) -> RlooSpec:
    """Without SFT: the named model is the start, and everything of it trains."""
    given = recipe(run, tuning="full", **changes).model_copy(update={"sft": None, "strategy": "dpo"})
    made: dict[str, Any] = {"recipe": given, "base": run.base, "data": run.data}
    stored = build(folder / "reference", lambda out: run_reference(ReferenceSpec(**made), out, Silent()))
    return RlooSpec(**made, reference=stored, reward_model=judge)
