"""The reference stage computes what is new and nothing else: counted in forwards of the model."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.rows import Pair, Source
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.data.validated import rows_file, write_rows
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.specs import ReferenceSpec
from preflow.stages.reference import run_reference
from tasks.runtime.caching import identity
from tests.conftest import make_model
from tests.fixtures.prepared_run import Run
from tests.unit.support import Recorder, recipe_for, rows

pytestmark = pytest.mark.slow  # each test fills a store with a model's forwards


@dataclass
class Stage:
    """Runs the reference stage again and again on one store, with an SFT model that stays."""

    run: Run
    folder: Path
    forwards: list[int]
    changes: dict[str, Any] = field(default_factory=dict)
    base: ModelRef | None = None

    def recipe(self, **dpo: Any) -> Recipe:
        assert self.run.recipe.dpo is not None
        section = {**self.run.recipe.dpo.model_dump(), **dpo}
        return recipe_for(self.run.base, dpo=section, **self.changes)

    def spec(self, pairs: list[Pair], **dpo: Any) -> ReferenceSpec:
        def write(out: Path) -> None:
            write_rows(out / rows_file("preferences", "train"), pairs)
            write_rows(out / rows_file("preferences", "eval"), rows(range(900, 904)))

        data = build(self.folder / f"data-{len(list(self.folder.iterdir()))}", write)
        base = self.base or self.run.base
        return ReferenceSpec(recipe=self.recipe(**dpo), base=base, data=data, sft=self.run.sft)

    def __call__(self, pairs: list[Pair], **dpo: Any) -> int:
        """Rows computed; the number of forwards is left in ``forwards``."""
        recorder, spec = Recorder(), self.spec(pairs, **dpo)
        self.forwards.clear()
        out = self.folder / f"out-{len(list(self.folder.iterdir()))}"
        artifact = build(out, lambda folder: run_reference(spec, folder, recorder))
        assert len(read_pairs(artifact.file("train.parquet"))) == len(pairs)
        return int(recorder.values["scoring/rows_computed"])


@pytest.fixture
def stage(prepared: Run, tmp_path: Path) -> Iterator[Stage]:
    """The stage after one run on twelve pairs, with a counter of every forward of any model."""
    forwards: list[int] = []

    def count(module: torch.nn.Module, *_: Any) -> None:
        if type(module).__name__ == "LlamaModel":
            forwards.append(1)

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    made = Stage(prepared, tmp_path, forwards)
    assert made(rows(range(12))) == 16
    assert len(forwards) == 16  # a pair is one row
    yield made
    hook.remove()


@pytest.mark.parametrize(
    "dpo",
    [
        {"learning_rate": 1e-4},
        {"beta": 0.5},
        {"loss_type": "ipo"},
        {"loss_type": ("sigmoid", "sft"), "loss_weights": (1.0, 0.1)},
        {"ld_alpha": 0.5},
        {"per_device_train_batch_size": 2},
        {"gradient_accumulation_steps": 4},
        {"num_train_epochs": 3.0},
        {"lr_scheduler_type": "linear"},
        {"save_steps": 7},
        {"max_seq_length": 200},
    ],
    ids=str,
)
def test_no_setting_of_the_optimizer_computes_anything(stage: Stage, dpo: dict[str, Any]) -> None:
    assert stage(rows(range(12)), **dpo) == 0
    assert stage.forwards == []
    if "max_seq_length" not in dpo:
        before, after = stage.spec(rows(range(12))), stage.spec(rows(range(12)), **dpo)
        assert identity("reference", before) == identity("reference", after)


def test_validation_pairs_are_scored_into_a_file_of_their_own(stage: Stage, tmp_path: Path) -> None:
    spec = stage.spec(rows(range(12)))

    def with_validation(out: Path) -> None:
        for name in ("train", "eval"):
            (out / rows_file("preferences", name)).write_bytes(
                spec.data.file(rows_file("preferences", name)).read_bytes()
            )
        write_rows(out / rows_file("preferences", "validation"), rows(range(500, 503)))

    asked = spec.model_copy(update={"data": build(tmp_path / "data", with_validation)})
    assert identity("reference", asked) != identity("reference", spec)
    artifact = build(tmp_path / "out", lambda out: run_reference(asked, out, Silent()))
    assert [pair.id for pair in read_pairs(artifact.file("validation.parquet"))] == [
        pair.id for pair in rows(range(500, 503))
    ]
    assert artifact.load("metrics.json")["reference/validation_pairs"] == 3.0


@pytest.mark.parametrize("change", [{"seed": 7}, {"name": "another"}, {"description": "new"}], ids=str)
def test_neither_seed_nor_name_computes_anything(stage: Stage, change: dict[str, Any]) -> None:
    """The SFT model stays: with another seed it would be another model. The output folder is another in every call."""
    stage.changes = change
    assert stage(rows(range(12))) == 0
    assert stage.forwards == []


@pytest.mark.parametrize(
    ("pairs", "computed"),
    [
        (rows(range(15)), 3),
        (rows([*reversed(range(12))]), 0),
        (rows([0, 1, 1, 2, 0]), 0),
        (rows([3, 5]), 0),
        (rows([100, 3, 101, 5]), 2),
        ([Pair(p.prompt, p.chosen, p.rejected, Source("other.jsonl", 7)) for p in rows(range(12))], 0),
    ],
    ids=["appended", "reordered", "repeated", "fewer", "another set that shares rows", "another file's name"],
)
def test_of_other_rows_only_the_new_ones_are_computed(stage: Stage, pairs: list[Pair], computed: int) -> None:
    assert stage(pairs) == computed
    assert len(stage.forwards) == computed


def test_a_length_limit_computes_the_rows_that_it_cuts(stage: Stage) -> None:
    """Every third prompt is long; a limit below the shortest of those cuts their responses and no others."""
    pairs = rows(range(20, 29), long=True)
    assert stage(pairs, max_seq_length=400) == 9
    renderer = Renderer(load_tokenizer(stage.run.base, stage.run.recipe), "chat")
    tokenized, _ = tokenize_pairs(pairs, renderer, 400, "cut")
    lengths = {pair.source.row: len(pair.prompt_ids) + len(pair.chosen_ids) for pair in tokenized}
    limit = min(length for row, length in lengths.items() if row % 3 == 0) - 1
    assert max(length for row, length in lengths.items() if row % 3) <= limit
    assert stage(pairs, max_seq_length=limit, overlong_response="cut") == 3


def test_one_character_of_the_template_computes_the_rows_that_show_it(stage: Stage, tmp_path: Path) -> None:
    """The template changes how pleading prompts are rendered, and no other."""
    folder = tmp_path / "templated"
    make_model(folder)
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    changed = text.replace("{{ message['content'] }}", "{{ message['content'] | replace('item 3', 'item3') }}")
    assert changed != text
    template.write_text(changed, encoding="utf-8")
    stage.base = resolve_model(Recipe(strategy="dpo", model_name=str(folder)), Silent())
    assert stage(rows(range(12))) == 1


def test_a_sweep_over_beta_computes_the_store_once(stage: Stage) -> None:
    specs = [stage.spec(rows(range(12)), beta=beta / 10) for beta in range(1, 9)]
    assert len({spec.recipe.settings_digest() for spec in specs}) == 8
    assert len({identity("reference", spec) for spec in specs}) == 1
    for beta in range(1, 9):
        assert stage(rows(range(12)), beta=beta / 10) == 0
        assert stage.forwards == []


def test_the_stored_table_is_read_without_a_forward(stage: Stage) -> None:
    """What DPO trains on comes from the artifact: token ids, and sums of the stored values."""
    spec = stage.spec(rows(range(12)))
    artifact: Artifact = build(stage.folder / "again", lambda out: run_reference(spec, out, Silent()))
    stage.forwards.clear()
    table = read_pairs(artifact.file("train.parquet"))
    columns = table.training_columns()
    for i, pair in enumerate(table):
        chosen, rejected = math.fsum(pair.ref_chosen), math.fsum(pair.ref_rejected)
        assert columns["ref_chosen_logps"][i].as_py() == pytest.approx(chosen, abs=1e-9)
        assert columns["ref_rejected_logps"][i].as_py() == pytest.approx(rejected, abs=1e-9)
        assert columns["chosen_ids"][i].as_py() == pair.chosen_ids
    assert stage.forwards == []
