"""Stages that take milliseconds and load no model, so that tests see the pipeline around them."""

import json
import os
import signal
import sys
import time
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import preflow.models.resolve
import tasks.runtime.caching
import tasks.runtime.stage
import tasks.tracking.registry.versions
from preflow.artifacts import write_json
from preflow.config import Recipe
from preflow.errors import DataUnfitError
from preflow.models.resolve import ModelRef
from preflow.observer import Observer

STEPS = 6
HALF = STEPS // 2


def install(real: frozenset[str] = frozenset()) -> None:
    """Put the fakes where the tasks import the stages from, but for modules that stay real."""
    stages = {
        "expectations.gate": ("run_gate", _gate),
        "preflow.stages.lengths": ("run_lengths", _lengths),
        "preflow.stages.sft": ("run_sft", _training("sft")),
        "preflow.stages.reference": ("run_reference", _reference),
        "preflow.stages.tune": ("run_tune", _tune),
        "preflow.stages.dpo": ("run_dpo", _training("dpo")),
        "preflow.stages.evaluation": ("run_evaluation", _evaluation),
        "preflow.stages.on_policy.sampling": ("run_sampling", _sampling),
        "preflow.stages.on_policy.judging": ("run_judging_answers", _judging_answers),
        "preflow.stages.on_policy.pairing": ("run_pairing", _pairing),
        "preflow.stages.rlhf.reward_model": ("run_reward_model", _reward_model),
        "preflow.stages.rlhf.rloo": ("run_rloo", _rloo),
    }
    for name in stages.keys() - real:
        function, fake = stages[name]
        module = types.ModuleType(name)
        setattr(module, function, fake)
        sys.modules[name] = module
    preflow.models.resolve.resolve_model = _resolve_model
    vars(tasks.runtime.stage)["unchanged"] = lambda _base: nullcontext()  # the model is in no folder
    vars(tasks.tracking.registry.versions)["write_package"] = _package
    vars(tasks.runtime.caching)["code_digest"] = lambda *roots, **given: f"code of the fake {roots[0]}"


def _resolve_model(recipe: Recipe, observer: Observer) -> ModelRef:
    return ModelRef(name=str(recipe.model_name), path="/nowhere", digest="base-digest")


def _package(candidate: Any, folder: Path) -> None:
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")


def _gate(spec: Any, out: Path, observer: Observer) -> None:
    _called("validate")
    write_json(out / "metrics.json", {"data/pairs": 4.0})
    for name in ("preferences.eval.jsonl", "quarantine.jsonl"):
        (out / name).touch()
    new = [source for source in spec.preferences if "pairs-round" in source.path]
    rows = [_trained(Path(source.path).name) for source in new]
    (out / "preferences.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(
        out / "report.json",
        {
            "verdict": "fit",
            "preferences": {"rows_in": 6, "eval": 2, "train": 4, "set_aside": 0, "findings": {}, "measures": {}},
        },
    )


def _trained(file: str) -> dict[str, Any]:
    turns = {name: [{"role": role, "content": "a"}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    return {**turns, "rejected": [{"role": "assistant", "content": "b"}], "file": file, "row": 1}


def _lengths(spec: Any, out: Path, observer: Observer) -> None:
    _called("lengths")
    if os.environ.get("FAKE_LENGTHS") == "none fits":
        raise DataUnfitError("dpo: no training pair is left")
    write_json(out / "metrics.json", {"lengths/dpo_dropped": 0.0})


def _training(stage: str) -> Any:
    def run(spec: Any, out: Path, observer: Observer) -> None:
        _called(stage)
        scratch = out / "scratch"
        scratch.mkdir(exist_ok=True)
        checkpoint = scratch / "step.json"
        first = json.loads(checkpoint.read_text()) + 1 if checkpoint.exists() else 1
        for step in range(first, STEPS + 1):
            values = {"loss": 1 / step, "grad_norm": 1.0}
            observer.metrics({f"{stage}/{name}": value for name, value in values.items()}, step)
            observer.progress(step, STEPS, f"{stage}: optimizer steps")
            if step == HALF:
                checkpoint.write_text(json.dumps(step))
                _die_if_asked(stage)
        log = [{"step": step, "loss": 1 / step, "grad_norm": 1.0} for step in range(1, STEPS + 1)]
        write_json(out / "training.json", log)
        (out / "model").mkdir(exist_ok=True)
        (out / "model" / "weights.txt").write_text(f"{stage} {spec.options()} {spec.inputs()}")
        write_json(out / "metrics.json", {f"{stage}/loss": 1 / STEPS})

    return run


def _reference(spec: Any, out: Path, observer: Observer, *, filled: bool) -> None:
    _called("reference")
    observer.metrics({"scoring/rows": 4.0}, 0)
    write_json(out / "values.json", spec.inputs())  # other pairs, other values
    write_json(out / "metrics.json", {"reference/rows": 4.0})


def _tune(spec: Any, out: Path, observer: Observer) -> None:
    _called("tune")
    tried = {"rate": 3e-5, "kl": 0.1, "margin": 0.2, "margin_se": 0.01, "accuracy": 0.7, "whole_kl": 1.0}
    write_json(out / "choice.json", {"learning_rate": 3e-5, "why": "it fits", "pairs_aside": 2, "tried": [tried]})
    (out / "figures").mkdir(exist_ok=True)
    (out / "figures" / "range_test.png").write_bytes(b"png")
    write_json(out / "metrics.json", {"tune/learning_rate": 3e-5})


def _evaluation(spec: Any, out: Path, observer: Observer) -> None:
    _called("evaluate")
    observer.note("evaluating [not markup]")
    names = [n for n, there in (("base", True), ("sft", spec.sft), ("dpo", spec.dpo)) if there]
    accuracy = {"value": 0.7, "low": 0.6, "high": 0.8}
    gain = {"value": 0.2, "low": 0.1, "high": 0.3}
    report = {
        "models": {name: {"preference_accuracy": accuracy} for name in names},
        "comparison": {"preference_accuracy_gain": {**gain, "p": 0.008, "test": "McNemar's exact test"}},
        "reference": "sft" if spec.sft else "base",
        "n_pairs": 40,
        "power": {"prompts": 40, "visible_difference": 0.2215, "small_difference": 0.05, "prompts_needed": 785},
        "confidence": 0.95,
        "warnings": ["only 40 held-out pairs"],
    }
    answers = dict.fromkeys(names, "An [answer].")
    write_json(out / "evaluation.json", report)
    write_json(out / "pairs.json", [])
    write_json(out / "samples.json", [{"prompt": "Where is\nit?", "answers": answers}])
    (out / "figures").mkdir(exist_ok=True)
    (out / "figures" / "rewards.png").write_bytes(b"png")
    write_json(out / "metrics.json", {"eval/preference_accuracy": 0.7})


def _sampling(spec: Any, out: Path, observer: Observer) -> None:
    _called("sample")
    _die_if_asked("sample")
    prompts = {"held_out": ["asked.jsonl:3"], "too_long": [], "unreadable": {}}
    write_json(out / "report.json", {"policy": spec.policy.digest if spec.policy else "base", "prompts": prompts})
    write_json(out / "metrics.json", {"sample/prompts": 4.0})


def _judging_answers(spec: Any, out: Path, observer: Observer) -> None:
    _called("judge_answers")
    write_json(out / "metrics.json", {"judge_answers/judge_fit": 1.0})


def _pairing(spec: Any, out: Path, observer: Observer) -> None:
    _called("pair")
    accuracy = {"value": 0.9, "low": 0.8, "high": 1.0}
    test = {"accuracy": accuracy, "pairs": 40, "consistency": 1.0, "first_share": 0.5}
    report = {
        "round": spec.round,
        "judge": {"name": "judge-1", "test": test},
        "prompts": 4,
        "pairs": 1,
        "dropped": {"unfinished": 2, "tie": 1, "order": 0},
        "answers": 16,
        "answer_tokens": 20.0,
        "cut_share": 0.5,
        "identical_share": 0.0,
        "length_difference": 3.0,
        "chosen_longer_share": 1.0,
    }
    write_json(out / "report.json", report)
    (out / f"pairs-round-{spec.round}.jsonl").write_text(
        json.dumps({"prompt": f"p{spec.round}", "chosen": "a", "rejected": "b"}) + "\n"
    )
    write_json(out / "metrics.json", {"augment/pairs": 1.0})


def _reward_model(spec: Any, out: Path, observer: Observer) -> None:
    _called("reward_model")
    _die_if_asked("reward_model")
    low = float(os.environ.get("FAKE_REWARD_LOW", "0.6"))
    accuracy = {"value": 0.75, "low": low, "high": 0.86}
    held_out = {"split": "eval", "pairs": 40, "prompts": 38, "accuracy": accuracy, "margin": 1.25}
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights.txt").write_text(f"{spec.options()} {spec.inputs()}")
    write_json(out / "report.json", {"held_out": held_out})
    write_json(out / "metrics.json", {"reward_model/accuracy": 0.75, "reward_model/accuracy_low": low})


def _rloo(spec: Any, out: Path, observer: Observer) -> None:
    _called("rloo")
    _die_if_asked("rloo")
    gain = {"value": 0.5, "low": 0.25, "high": 0.75}
    held_out = {"prompts": 16, "reward_before": -1.25, "reward": -0.75, "answer_tokens": 24.5, "finished": 0.75}
    write_json(out / "report.json", {"held_out": {**held_out, "reward_gain": gain}})
    (out / "model").mkdir(exist_ok=True)
    (out / "model" / "weights.txt").write_text(f"{spec.options()} {spec.inputs()}")
    stopped = {"rloo/stopped_at_step": 40.0, "rloo/kept_step": 20.0}
    write_json(out / "metrics.json", {"rloo/eval_kl": 0.125, "rloo/steps": 40.0, **stopped})


def _called(stage: str) -> None:
    """Leave a line for the test that counts computations."""
    log = os.environ.get("FAKE_CALLS")
    if log:
        with Path(log).open("a", encoding="utf-8") as handle:
            handle.write(f"{stage}\n")


def _die_if_asked(stage: str) -> None:
    if os.environ.get("FAKE_TERMINATE") == stage:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if os.environ.get("FAKE_INTERRUPT") == stage:  # Ctrl-C
        time.sleep(1)
        os.killpg(os.getpgid(0), signal.SIGINT)
        time.sleep(60)
    if os.environ.get("FAKE_KILL") == stage:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    install()
    from importlib import import_module

    import typer

    typer.run(import_module(f"flows.commands.{os.environ.get('FAKE_COMMAND', 'run')}").main)
