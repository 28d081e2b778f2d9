"""A model answers a prompt once, whatever asks for the answer."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from preflow.artifacts import build
from preflow.evaluation import generation
from preflow.evaluation.answers import Decoding, Prompt, kept_answers
from preflow.evaluation.generation import held_out_prompts
from preflow.evaluation.models import ModelSet
from preflow.observer import Silent
from preflow.specs import EvaluateSpec
from preflow.stages.evaluation import run_evaluation


@pytest.mark.slow
def test_answers_are_kept_and_a_model_answers_once_in_all_trials(
    spec: EvaluateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another trial of DPO: its own model alone is asked again. The figures are those of a run with an empty store."""
    asked: list[str] = []
    own = generation.generate

    def counted(models: ModelSet, name: str, *args: Any, **options: Any) -> Any:
        asked.append(name)
        return own(models, name, *args, **options)

    def retrained(out: Path) -> None:
        assert spec.dpo is not None
        shutil.copytree(spec.dpo.path, out, dirs_exist_ok=True)
        (out / "manifest.json").unlink()
        weights = out / "model" / "adapter_model.safetensors"
        save_file({name: 1.01 * value for name, value in load_file(weights).items()}, weights)

    monkeypatch.setattr(generation, "generate", counted)
    trial = spec.model_copy(update={"dpo": build(tmp_path / "retrained", retrained)})
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "one"))
    first = build(tmp_path / "first", lambda out: run_evaluation(spec, out, Silent()))
    assert sorted(set(asked)) == ["base", "dpo", "sft"]
    asked.clear()
    second = build(tmp_path / "second", lambda out: run_evaluation(trial, out, Silent()))
    assert set(asked) == {"dpo"}
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "two"))
    fresh = build(tmp_path / "fresh", lambda out: run_evaluation(trial, out, Silent()))
    assert fresh.digest == second.digest
    for name in ("base", "sft"):
        assert first.load(f"answers/{name}.json") == second.load(f"answers/{name}.json")
    rows = {name: second.load(f"answers/{name}.json") for name in ("base", "sft", "dpo")}
    assert len({row["model"] for each in rows.values() for row in each}) == 3
    settings = spec.recipe.evaluation
    for each in rows.values():
        sampled = [row for row in each if row["seed"] is not None]
        assert (len(sampled), len(each)) == (settings.kl_prompts, settings.kl_prompts + 3)
        assert {row["prompt_id"] for row in sampled} <= {row["prompt_id"] for row in second.load("pairs.json")}
        assert all(row["finished"] or row["tokens"] == settings.max_new_tokens for row in each)
    lengths = [row["tokens"] for row in rows["dpo"] if row["seed"] is not None]
    assert second.load("evaluation.json")["models"]["dpo"]["response_tokens"] == np.mean(lengths)


def test_answers_to_other_prompts_or_of_other_lengths_are_other_answers(
    spec: EvaluateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    models = ModelSet(spec)
    prompts = held_out_prompts(spec, models)[0][:3]
    given: list[int] = []

    def ask(prompts: list[Prompt], decoding: Decoding, name: str = "base") -> None:
        def answer() -> list[list[int]]:
            given.append(len(prompts))
            return [[7]] * len(prompts)

        kept_answers(models, name, prompts, decoding, answer)

    plain = Decoding(seed=1, max_new_tokens=4, batch_size=2)
    for _ in range(2):
        ask(prompts, plain)
    assert given == [3]
    ask(prompts[:2], plain)
    for changed in (replace(plain, seed=None), replace(plain, max_new_tokens=5), replace(plain, batch_size=3)):
        ask(prompts, changed)
    ask(prompts, plain, "sft")
    assert given == [3, 2, 3, 3, 3, 3]
