"""The KL monitor measures divergence, and KL early stopping ends a training before it ruins the weights."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from preflow.artifacts import SCRATCH, Artifact
from preflow.config import Recipe
from preflow.dpo.best_weights import unneeded_weights
from preflow.dpo.early_stopping import KlEarlyStopping
from preflow.dpo.kl_monitor import HeldOutMonitor
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.maths.divergence import kl_divergence, merged_kl
from preflow.observer import Silent
from preflow.stages.dpo import _monitor, run_dpo
from preflow.training.checkpoints import resume_point
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for, write_pairs

LIMIT = 0.25


class Recorder(Silent):
    """Remembers notes and metrics."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.numbers: list[tuple[int, dict[str, float]]] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def metrics(self, values: Any, step: int) -> None:
        self.numbers.append((step, dict(values)))


def spec_with(run: Run, **settings: Any) -> Any:
    return run.dpo(recipe=recipe_for(run.base, dpo={**COMMON, "learning_rate": 1e-3, **settings}))


def test_merged_kl_of_known_values() -> None:
    """One token, 0.5 against 0.25: 0.5 ln 2 + 0.5 ln(0.5 / 0.75) = 0.5 ln(4 / 3); equal values are 0.

    Two tokens, (0.5, 0.25) against (0.25, 0.25): 0.5 ln 2 + 0 + 0.25 ln(0.25 / 0.5) = 0.25 ln 2.
    """
    got = merged_kl(torch.tensor([[0.5], [0.25]]).log(), torch.tensor([[0.25], [0.25]]).log())
    assert got.tolist() == pytest.approx([0.5 * math.log(4 / 3), 0.0], abs=1e-7)
    both = merged_kl(torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.25]).log())
    assert float(both) == pytest.approx(0.25 * math.log(2), abs=1e-7)
    certain = merged_kl(torch.tensor([[0.0], [-200.0], [0.0]]), torch.tensor([[-200.0], [0.0], [0.0]]))
    assert certain[:1].tolist() == pytest.approx([200.0], abs=0.01)
    assert torch.isfinite(certain).all()


def test_merged_kl_is_never_above_the_whole_one_and_near_it() -> None:
    """With all but a few unlikely tokens of the reference, nearly everything is seen."""
    torch.manual_seed(0)
    p, q = torch.randn(200, 12).double(), torch.randn(200, 12).double()
    whole = kl_divergence(p, q)
    logs = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    for kept in (1, 4, 11):
        at = logs[1].topk(kept).indices
        part = merged_kl(logs[0].gather(-1, at), logs[1].gather(-1, at))
        assert (part <= whole + 1e-9).all()
    assert torch.allclose(part, whole, rtol=1e-3, atol=1e-4)


def test_the_kl_monitor_measures_known_values(tmp_path: Path) -> None:
    """One pair: chosen rises by 1 and 0.5 nats, rejected falls by 2; beta 0.1 makes a margin of 0.35.

    Of two tokens the reference gives each a half; later the policy gives one 0.8: KL 0.8 ln 1.6 + 0.2 ln 0.4 at both
    places of the chosen response. The reference is remembered through a file.
    """
    pair = ScoredPair([5, 6], [7, 8], [9], [-2.0, -1.0], [-1.0], "p.jsonl row 1")
    values = torch.tensor([[0.0, -1.0, -0.5], [0.0, -3.0, 0.0]])
    chance = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    held_out = HeldOutMonitor([pair], lambda chunk: values, lambda row: chance.log(), beta=0.1, batch=4)
    held_out.snapshot_reference()
    assert held_out.measure().kl == pytest.approx(0, abs=1e-6)
    held_out.save(tmp_path / "expected.safetensors")
    later = HeldOutMonitor(
        [pair], lambda chunk: values, lambda row: torch.tensor([[0.8, 0.2]] * 2).log(), beta=0.1, batch=4
    )
    later.load_snapshot(tmp_path / "expected.safetensors")
    metrics = later.measure()
    assert (metrics.chosen, metrics.rejected, metrics.reward_accuracy) == (1.5, -2.0, 1.0)
    assert metrics.reward_margin == pytest.approx(0.35)
    assert metrics.reward_margin_se == 0.0
    assert metrics.kl == pytest.approx(2 * (0.8 * math.log(1.6) + 0.2 * math.log(0.4)), rel=1e-5)


@pytest.mark.parametrize("validation", [True, False])
def test_validation_pairs_choose_where_there_are_any(tmp_path: Path, validation: bool) -> None:
    test, choosing = (ScoredPair([1], [2], [3], [-1.0], [-2.0], name) for name in ("test", "choosing"))
    write_pairs(tmp_path / "eval.parquet", [test])
    if validation:
        write_pairs(tmp_path / "validation.parquet", [choosing])
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": "m", "dpo": {"dataset": "p.jsonl"}})
    reference = Artifact(path=str(tmp_path), digest="", bytes=0)
    spec: Any = SimpleNamespace(recipe=recipe, reference=reference)
    trainer: Any = SimpleNamespace(model=None, add_callback=lambda callback: None)
    precision: Any = None
    monitor = _monitor(spec, trainer, precision, tmp_path, Recorder()).held_out
    assert monitor is not None
    assert [pair.source for pair in monitor.pairs] == ["choosing" if validation else "test"]


def test_the_noise_of_a_measured_margin_is_its_standard_error() -> None:
    """Two pairs move apart by 1 and 3 nats; beta 0.1: margins 0.1 and 0.3, deviation 0.1414, error 0.1."""
    pairs = [ScoredPair([5], [7], [9], [-1.0], [-1.0], f"p.jsonl row {i}") for i in (1, 2)]
    values = torch.tensor([[0.0], [2.0], [-1.0], [-1.0]])
    half = torch.tensor([[0.5, 0.5]]).log()
    held_out = HeldOutMonitor(pairs, lambda chunk: values, lambda row: half, beta=0.1, batch=4)
    held_out.snapshot_reference()
    metrics = held_out.measure()
    assert metrics.reward_margin == pytest.approx(0.2)
    assert metrics.reward_margin_se == pytest.approx(0.1)


@pytest.mark.slow
def test_a_forced_learning_rate_is_stopped_and_undone(prepared: Run, tmp_path: Path) -> None:
    """A random model of 300 words gives no token a likelihood worth losing, so the limit is as small as its KL."""
    recorder = Recorder()
    spec = spec_with(prepared, learning_rate=0.5, warmup_ratio=0.0, eval_steps=1, kl_limit=LIMIT)
    run_dpo(spec, tmp_path, recorder)
    (note,) = [note for note in recorder.notes if "stopped at step" in note]
    assert "dpo.kl_limit 0.25" in note
    log = json.loads((tmp_path / "training.json").read_text())
    measured = [entry for entry in log if "eval_kl" in entry]
    assert measured[-1]["eval_kl"] > LIMIT
    assert all(entry["eval_kl"] <= LIMIT for entry in measured[:-1])
    assert measured[-1]["step"] < 6, "it trained to the end"
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    kept = int(metrics["dpo/kept_step"])
    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")
    best = load_file(tmp_path / SCRATCH / f"best-{kept}.safetensors")
    assert all(best[name.replace(".weight", ".default.weight")].equal(value) for name, value in saved.items())
    ratio = {entry["step"]: entry["eval_kl"] for entry in measured}
    assert ratio[kept] <= LIMIT


@pytest.mark.slow
def test_a_divergence_that_is_no_number_stops_and_stands_nowhere(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights so far off that held-out responses have no likelihood any more: the stage ends whole all the same."""
    measure = HeldOutMonitor.measure
    monkeypatch.setattr(
        HeldOutMonitor, "measure", lambda self: replace(measure(self), kl=math.nan, reward_margin=math.inf)
    )
    recorder = Recorder()
    run_dpo(spec_with(prepared, eval_steps=1), tmp_path, recorder)
    (note,) = [note for note in recorder.notes if "stopped at step 1" in note]
    assert "no number any more" in note
    assert "The weights of step 0 are kept" in note
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "dpo/eval_reward_accuracy" in metrics
    assert not {"dpo/eval_kl", "dpo/eval_reward_margin"} & metrics.keys()
    (evaluation_at_1,) = [
        e for e in json.loads((tmp_path / "training.json").read_text()) if e.get("step") == 1 and "eval_chosen" in e
    ]
    assert "eval_kl" not in evaluation_at_1


@pytest.mark.slow
@pytest.mark.parametrize("eval_steps", [4, 6])
def test_a_stopped_training_that_is_killed_goes_back_all_the_same(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eval_steps: int
) -> None:
    """Killed after its last checkpoint, where KL early stopping had ended it, and before the best weights were back."""
    changes = {"learning_rate": 0.5, "warmup_ratio": 0.0, "kl_limit": LIMIT}
    changes |= {"eval_steps": eval_steps, "save_steps": eval_steps}
    spec = spec_with(prepared, **changes)
    run_dpo(spec, tmp_path / "whole", Silent())
    with monkeypatch.context() as patch:
        patch.setattr(KlEarlyStopping, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run_dpo(spec, tmp_path / "killed", Silent())
    assert resume_point(tmp_path / "killed" / SCRATCH) is not None
    recorder = Recorder()
    run_dpo(spec, tmp_path / "killed", recorder)
    assert [note for note in recorder.notes if "stopped at step" in note]
    for name in ("model/adapter_model.safetensors", "training.json", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_training_that_holds_still_is_not_stopped(prepared: Run, tmp_path: Path) -> None:
    recorder = Recorder()
    run_dpo(spec_with(prepared, eval_steps=3), tmp_path, recorder)
    assert not [note for note in recorder.notes if "stopped" in note]
    seen = [step for step, values in recorder.numbers if "dpo/eval_kl" in values]
    assert seen == [3, 6]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "dpo/kept_step" not in metrics
    assert metrics["dpo/eval_kl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "pairs"), [(None, [4, 4]), (64, [1] * 8)])
def test_a_look_runs_no_more_pairs_together_than_training_may(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int | None, pairs: list[int]
) -> None:
    seen: list[int] = []
    own = HeldOutMonitor._changes

    def counted(self: HeldOutMonitor, start: int) -> Any:
        seen.append(len(self.pairs[start : start + self.batch]))
        return own(self, start)

    monkeypatch.setattr(HeldOutMonitor, "_changes", counted)
    run_dpo(spec_with(prepared, max_steps=1, max_tokens_per_batch=budget, eval_pairs=8), tmp_path, Silent())
    assert seen == pairs


@pytest.mark.slow
def test_a_run_without_a_look_says_that_nothing_limits_kl(prepared: Run, tmp_path: Path) -> None:
    recorder = Recorder()
    run_dpo(spec_with(prepared, eval_pairs=0, max_steps=1), tmp_path, recorder)
    assert "dpo: dpo.eval_pairs is 0, so KL is not measured and dpo.kl_limit stops nothing" in recorder.notes


@pytest.mark.slow
def test_looking_changes_no_weight(prepared: Run, tmp_path: Path) -> None:
    weights = []
    for number, steps in enumerate((0, 1)):
        out = tmp_path / str(number)
        run_dpo(spec_with(prepared, eval_steps=steps), out, Silent())
        weights.append((out / "model" / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def state_with(*entries: tuple[int, float, float], error: float = 0.05) -> Any:
    """Measurements: step, KL and reward margin, each margin with the same standard error."""
    history = [
        {"step": s, "eval_kl": kl, "eval_reward_margin": margin, "eval_reward_margin_se": error}
        for s, kl, margin in entries
    ]
    return type("State", (), {"log_history": history})()


def test_patience_counts_measurements_without_a_rise_beyond_their_error(prepared: Run, tmp_path: Path) -> None:
    settings = spec_with(prepared, early_stop_patience=2).recipe.dpo
    guard = KlEarlyStopping(None, tmp_path, settings, Silent())
    rising = state_with((0, 0, 0), (2, 1, 0.1), (4, 1, 0.2), (6, 1, 0.24))
    assert guard._why_stop(rising, 1.0) is None
    rising.log_history += state_with((8, 1, 0.23)).log_history
    assert "no more than its standard error in 2" in str(guard._why_stop(rising, 1.0))
    assert guard._best(rising) == 4
    rising.log_history += state_with((10, 11, 1.0)).log_history
    assert guard._best(rising) == 4, "beyond the limit nothing is best"


def test_the_luckiest_of_ten_measurements_is_not_the_best(prepared: Run, tmp_path: Path) -> None:
    """True margin 0.2 from step 2 on, standard error 0.1: of ten measurements the highest is far above, by luck."""
    settings: Any = prepared.recipe.dpo
    guard = KlEarlyStopping(None, tmp_path, settings, Silent())
    luck = (0.2, 0.13, 0.27, 0.18, 0.29, 0.22, 0.1, 0.25, 0.16, 0.24)
    noisy = state_with((0, 0, 0), *((2 * i, 1, margin) for i, margin in enumerate(luck, start=1)), error=0.1)
    assert guard._best(noisy) == 2
    noisy.log_history += state_with((30, 1, 0.5), error=0.1).log_history
    assert guard._best(noisy) == 30, "a rise beyond the error is one"


def test_weights_stay_that_a_checkpoint_may_send_training_back_to(tmp_path: Path) -> None:
    """Best at 0, 2, 3, 5 and 6, checkpoints of 4 and 8 whole or not: only 2 and 5 are of no use after 6."""
    best = [tmp_path / f"best-{step}.safetensors" for step in (0, 2, 3, 5, 6)]
    assert unneeded_weights(tmp_path, best) == best[1:4]
    for step in (4, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert [path.name for path in unneeded_weights(tmp_path, best)] == ["best-2.safetensors", "best-5.safetensors"]
    assert unneeded_weights(tmp_path, []) == []


def test_weights_of_a_try_that_was_cut_short_after_its_checkpoint_go(prepared: Run, tmp_path: Path) -> None:
    """Else they would stand for the best of a later checkpoint's time, whose own would be removed."""
    settings: Any = prepared.recipe.dpo
    guard: Any = KlEarlyStopping(None, tmp_path, settings, Silent())
    guard.held_out = SimpleNamespace(load_snapshot=lambda file: None)
    for step in (0, 20, 40):
        (tmp_path / f"best-{step}.safetensors").touch()
    guard.on_train_begin(None, TrainerState(global_step=25), None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["best-0.safetensors", "best-20.safetensors"]


def test_weights_of_a_try_that_was_cut_short_before_any_checkpoint_go(prepared: Run, tmp_path: Path) -> None:
    """The new try begins at step 0 and may find others best."""
    settings: Any = prepared.recipe.dpo
    guard: Any = KlEarlyStopping(torch.nn.Linear(2, 2), tmp_path, settings, Silent())
    guard.held_out = SimpleNamespace(snapshot_reference=lambda: None, save=lambda file: None)
    (tmp_path / "best-20.safetensors").touch()
    guard.on_train_begin(None, TrainerState(is_world_process_zero=True), None)
    assert [file.name for file in tmp_path.iterdir()] == ["best-0.safetensors"]
