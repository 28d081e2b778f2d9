"""What each round starts from, trains on and is measured against."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows import iterate
from flows.opening import OpenedRun
from flows.running.preparation import PreparedRun
from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.models.resolve import ModelRef
from preflow.specs import EvaluateSpec, ReferenceSpec, ValidateSpec
from tasks.tracking.pipeline_run import PipelineRun


@dataclass
class Seen:
    """What the stages of the rounds were given."""

    policies: list[Artifact | None] = field(default_factory=list)
    unions: list[list[int]] = field(default_factory=list)
    starts: list[ReferenceSpec] = field(default_factory=list)
    measured: list[EvaluateSpec] = field(default_factory=list)
    logged: list[int] = field(default_factory=list)


class Rooms:
    """A folder of artifacts that hold one JSON file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, file: str, values: dict[str, Any]) -> Artifact:
        return build(self.folder / name, lambda out: write_json(out / file, values))


BASE = ModelRef(name="m", path="/nowhere", digest="b" * 64)


def run_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int = 3, **augment: Any
) -> tuple[Seen, Any, str]:
    """Three rounds whose stages do nothing."""
    recipe = Recipe.model_validate(
        {"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}, "augment": {"iterations": 3, **augment}}
    )
    rooms, seen = Rooms(tmp_path), Seen()
    data, sft, stored = (rooms.make(name, "x.json", {"of": name}) for name in ("data", "sft", "stored"))

    def new_pairs(opened: OpenedRun, policy: Any, prompts: Any, number: int, run: Any) -> Any:
        assert (opened.base, opened.data) == (BASE, data), "answers are to prompts of the recipe's own data"
        seen.policies.append(policy)
        names = ("identical_share", "cut_share", "length_difference", "chosen_longer_share")
        report = {"round": number, "prompts": 4, "pairs": pairs, "dropped": {}, **dict.fromkeys(names, 0.0)}
        judge = {"judge": {"test": {"first_share": 0.5}}}
        return data, data, rooms.make(f"pair-{number}", "report.json", {**report, **judge})

    def union(_: Any, made: list[Artifact], run: PipelineRun) -> Artifact:
        seen.unions.append([each.load("report.json")["round"] for each in made])
        return rooms.make(f"union-{run.part}", "x.json", {"of": run.part})

    def aligned(spec: ReferenceSpec, run: PipelineRun) -> Artifact:
        seen.starts.append(spec)
        return rooms.make(f"dpo-{run.part}", "x.json", {"of": f"dpo {run.part}"})

    def evaluate(spec: EvaluateSpec, run: PipelineRun) -> Artifact:
        seen.measured.append(spec)
        models = {name: {"preference_accuracy": {"value": 0.5}} for name in ("sft", "dpo")}
        return rooms.make(f"evaluate-{run.part}", "evaluation.json", {"reference": "sft", "models": models})

    def resolve_model(recipe: Recipe, observer: Any) -> ModelRef:
        return ModelRef(name="round", path=str(recipe.model_name), digest="r" * 64)

    stages = {
        "new_pairs": new_pairs, "validated_union": union, "aligned": aligned, "evaluate": evaluate,
        "resolve_model": resolve_model, "log_round": lambda run, values, number: seen.logged.append(number),
    }  # fmt: skip
    for name, stage in stages.items():
        monkeypatch.setattr(iterate, name, stage)
    start = ReferenceSpec(recipe=recipe, base=BASE, data=data, sft=sft)
    run = PipelineRun(recipe="tiny", experiment_id="0", run_id="1")
    chain = iterate._Chain(
        OpenedRun(PreparedRun(recipe=recipe, sources=ValidateSpec()), run, data, BASE), start, stored, ()
    )
    return seen, chain, chain.run()


def test_a_fixed_reference_aligns_the_first_model_anew_on_the_pairs_of_all_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, chain, why = run_rounds(tmp_path, monkeypatch)
    assert why == ""
    assert seen.policies == [chain.start.sft, *chain.models[:2]]
    assert seen.unions == [[1], [1, 2], [1, 2, 3]]
    assert [(spec.base, spec.sft) for spec in seen.starts] == [(BASE, chain.start.sft)] * 3
    assert seen.logged == [1, 2, 3]


def test_the_last_model_goes_on_under_its_own_name_on_the_pairs_of_its_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, chain, _ = run_rounds(tmp_path, monkeypatch, reference="last")
    assert seen.unions == [[1], [2], [3]]
    assert (seen.starts[0].base, seen.starts[0].sft) == (BASE, chain.start.sft)
    for spec, model in zip(seen.starts[1:], chain.models, strict=False):
        assert (spec.base.path, spec.sft) == (str(model.file("model")), None)


@pytest.mark.parametrize("reference", ["fixed", "last"])
def test_every_round_is_measured_against_the_first_model_on_the_recipes_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    seen, chain, _ = run_rounds(tmp_path, monkeypatch, reference=reference)
    for spec, model in zip(seen.measured, chain.models, strict=True):
        given = (spec.base, spec.data, spec.sft, spec.reference, spec.dpo)
        assert given == (BASE, chain.start.data, chain.start.sft, chain.stored, model)


def test_a_round_without_a_pair_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, chain, why = run_rounds(tmp_path, monkeypatch, pairs=0)
    assert why == "round 1 made no pair"
    assert (chain.models, seen.starts) == ([], [])
