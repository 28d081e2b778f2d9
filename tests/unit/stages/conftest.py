"""A small run's artifacts on the tiny model: data, SFT model, reference; made once, never written to by tests."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.rows import Demonstration, Message, Pair, Source
from preflow.data.store import rows_file, write_rows
from preflow.models.base import ModelRef
from preflow.observer import Silent
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from preflow.stages.specs import DpoSpec, ReferenceSpec, SftSpec

TRAIN_PAIRS, EVAL_PAIRS = 24, 8
COMMON = {"dataset": "-", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "save_steps": 2}


def recipe_for(model: ModelRef, **changes: object) -> Recipe:
    """A two-stage recipe for the tiny model."""
    settings: dict[str, object] = {
        "model_name": model.path,
        "max_seq_length": 256,
        "lora_r": 4,
        "sft": {**COMMON, "learning_rate": 1e-2},
        "dpo": {**COMMON, "learning_rate": 1e-3},
        "evaluation": {"kl_prompts": 2, "max_new_tokens": 6, "bootstrap_samples": 100},
    }
    return Recipe.model_validate({**settings, **changes})


def turns(prompt: str, *responses: str) -> list[tuple[Message, ...]]:
    """A prompt and responses as single turns."""
    return [(Message("user", prompt),), *((Message("assistant", text),) for text in responses)]


def write_data(out: Path) -> None:
    """A validate stage's folder, written directly."""
    rows = [turns(f"Where is order {i}?", f"Order {i} is on its way{'!' * (i % 5)}") for i in range(24)]
    demonstrations = [Demonstration(p + c, Source("d.jsonl", i)) for i, (p, c) in enumerate(rows)]
    texts = [
        turns(f"Can I return item {i}{' please' * (i % 4)}?", f"Of course, bring item {i} back.", f"No idea about {i}.")
        for i in range(TRAIN_PAIRS + EVAL_PAIRS)
    ]
    pairs = [Pair(p, c, r, Source("p.jsonl", i)) for i, (p, c, r) in enumerate(texts)]
    write_rows(out / rows_file("demonstrations", "train"), demonstrations[:-6])
    write_rows(out / rows_file("demonstrations", "eval"), demonstrations[-6:])
    write_rows(out / rows_file("preferences", "train"), pairs[:TRAIN_PAIRS])
    write_rows(out / rows_file("preferences", "eval"), pairs[TRAIN_PAIRS:])


@dataclass(frozen=True)
class Run:
    """What the stages before DPO made."""

    folder: Path
    recipe: Recipe
    base: ModelRef
    data: Artifact
    sft: Artifact
    reference: Artifact

    def dpo(self, **changes: object) -> DpoSpec:
        """The DPO stage's specification."""
        parts = {name: getattr(self, name) for name in ("recipe", "base", "data", "sft", "reference")}
        return DpoSpec.model_validate({**parts, **changes})


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny: ModelRef) -> Run:
    """The run's artifacts."""
    folder = tmp_path_factory.mktemp("run")
    before = os.environ.get("PREFLOW_HOME")
    os.environ["PREFLOW_HOME"] = str(folder / "home")
    recipe = recipe_for(tiny)
    data = build(folder / "data", write_data)
    sft = build(folder / "sft", lambda out: run_sft(SftSpec(recipe=recipe, base=tiny, data=data), out, Silent()))
    asked = ReferenceSpec(recipe=recipe, base=tiny, data=data, sft=sft)
    reference = build(folder / "reference", lambda out: run_reference(asked, out, Silent()))
    if before is None:
        del os.environ["PREFLOW_HOME"]
    else:
        os.environ["PREFLOW_HOME"] = before
    return Run(folder, recipe, tiny, data, sft, reference)
