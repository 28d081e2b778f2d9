"""``preflow init``: the recipe that it writes for files of many formats can be validated and run as it is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from expectations.gate import run_gate
from flows.commands.init import main
from flows.running.preparation import PreparedRun, prepare_run
from preflow.artifacts import build
from preflow.models.resolve import ModelRef
from preflow.observer import Silent
from preflow.specs import DpoSpec, LengthsSpec, ReferenceSpec, SftSpec, TuneSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.lengths import run_lengths
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from preflow.stages.tune import run_tune
from tests.conftest import demonstration_rows, preference_rows, write_jsonl

Row = dict[str, Any]


def init(*arguments: str) -> tuple[int, str]:
    """Exit code and what the command printed."""
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


def turns(*texts: str) -> list[Row]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def alpaca(row: Row) -> Row:
    return {"instruction": row["prompt"], "input": "", "output": row["completion"]}


#: How a row is written, its strategy, and what the command says of it.
FORMATS: dict[str, tuple[Callable[[Row], Row], str, str]] = {
    "alpaca": (alpaca, "sft", "alpaca demonstrations: instruction -> prompt, output -> completion"),
    "sharegpt": (
        lambda row: {
            "conversations": [
                {"from": "human", "value": row["prompt"]},
                {"from": "gpt", "value": row["completion"]},
            ]
        },
        "sft",
        "conversation demonstrations: conversations -> turns",
    ),
    "words in names": (
        lambda row: {"customerQuestion": row["prompt"], "agent reply": row["completion"], "id": 1},
        "sft",
        "prompt and answer demonstrations: customerQuestion -> prompt, agent reply -> completion",
    ),
    "transcript": (
        lambda row: {"text": f"### Human: {row['prompt']}### Assistant: {row['completion']}"},
        "sft",
        "text demonstrations: text -> turns",
    ),
    "favourable verdicts": (
        lambda row: {"prompt": row["prompt"], "completion": row["completion"], "label": True},
        "sft",
        "prompt and answer demonstrations",
    ),
    "swift": (
        lambda row: {"messages": turns(row["prompt"], row["chosen"]), "rejected_response": row["rejected"]},
        "dpo",
        "rejected response pairs: rejected_response -> rejected, messages -> prompt and chosen",
    ),
    "hh": (
        lambda row: {
            side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")
        },
        "dpo",
        "chosen and rejected pairs: what both begin with -> prompt",
    ),
    "other names": (
        lambda row: {"question": row["prompt"], "best_answer": row["chosen"], "worst_answer": row["rejected"]},
        "dpo",
        "chosen and rejected pairs: question -> prompt, best_answer -> chosen, worst_answer -> rejected",
    ),
    "arena": (
        lambda row: {
            "prompt": row["prompt"], "response_a": row["rejected"], "response_b": row["chosen"], "winner": "model_b"
        },
        "dpo",
        "response_a + response_b by winner -> chosen and rejected",
    ),
}  # fmt: skip


def written(folder: Path, form: str, tiny: ModelRef) -> tuple[PreparedRun, str]:
    write, strategy, _ = FORMATS[form]
    rows = demonstration_rows(40) if strategy == "sft" else preference_rows(40)
    write_jsonl(folder / "rows.jsonl", [write(row) for row in rows])
    recipe = folder / "recipe.yaml"
    code, told = init(str(folder / "rows.jsonl"), "--model", str(tiny.path), "--output", str(recipe))
    assert code == 0, told
    assert f"\nstrategy: {strategy} #" in recipe.read_text()
    return prepare_run(recipe), told


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_recipe_for_a_format_validates_and_all_its_rows_are_used(tmp_path: Path, form: str, tiny: ModelRef) -> None:
    prepared, told = written(tmp_path, form, tiny)
    assert FORMATS[form][2] in told
    data = build(tmp_path / "data", lambda out: run_gate(prepared.sources, out, Silent()))
    report = json.loads((tmp_path / "data" / "report.json").read_text())
    (kind,) = report.keys() & {"demonstrations", "preferences"}
    assert report["verdict"] == "fit"
    assert min(report[kind]["train"], report[kind]["eval"]) > 0
    spec = LengthsSpec(recipe=prepared.recipe, base=tiny, data=data)
    build(tmp_path / "lengths", lambda out: run_lengths(spec, out, Silent()))


@pytest.mark.slow
def test_the_recipe_for_demonstrations_and_pairs_trains_both_stages(tmp_path: Path, tiny: ModelRef) -> None:
    shown = write_jsonl(tmp_path / "shown.jsonl", [alpaca(row) for row in demonstration_rows(20)])
    pairs = write_jsonl(tmp_path / "pairs.jsonl", preference_rows(20))
    recipe = tmp_path / "recipe.yaml"
    code, _ = init(str(shown), str(pairs), "--model", str(tiny.path), "--output", str(recipe))
    assert code == 0
    assert "strategy: two-stage" in recipe.read_text()
    assert "learning_rate: auto" in recipe.read_text(), "no rate that is right for 8B would move a small model"
    prepared = prepare_run(recipe, {"max_steps": 2, "dpo.range_test_steps": 2})
    data = build(tmp_path / "data", lambda out: run_gate(prepared.sources, out, Silent()))
    given: dict[str, Any] = {"recipe": prepared.recipe, "base": tiny, "data": data}
    tuned = build(tmp_path / "sft", lambda out: run_sft(SftSpec(**given), out, Silent()))
    asked = ReferenceSpec(**given, sft=tuned)
    stored = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    given |= {"sft": tuned, "reference": stored}
    choice = build(tmp_path / "tune", lambda out: run_tune(TuneSpec(**given), out, Silent())).load("choice.json")
    assert prepared.recipe.dpo is not None
    chosen = prepared.recipe.dpo.model_copy(update={"learning_rate": choice["learning_rate"]})
    spec = DpoSpec(**{**given, "recipe": prepared.recipe.model_copy(update={"dpo": chosen})})
    build(tmp_path / "dpo", lambda out: run_dpo(spec, out, Silent()))
    assert (tmp_path / "dpo" / "model").is_dir()


def test_a_recipe_that_is_there_stays_unless_it_is_forced(tmp_path: Path) -> None:
    rows, recipe = write_jsonl(tmp_path / "p.jsonl", preference_rows(9)), tmp_path / "r.yaml"
    recipe.write_text("mine")
    code, told = init(str(rows), "--output", str(recipe))
    assert (code, recipe.read_text()) == (2, "mine")
    assert "exists already" in told
    assert init(str(rows), "--output", str(recipe), "--force")[0] == 0
    assert recipe.read_text() != "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"r.yaml", "p.jsonl", "home"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.jsonl", None, "DataFileError: data file .*No such file"),
        ("a.jsonl", "", "ConfigError: .*a.jsonl holds no row that can be read"),
        ("a.jsonl", "{", "ConfigError: .*a.jsonl holds no row that can be read"),
        ("a.jsonl", '{"topic": "t", "remark": "r"}\n', "ConfigError: .*columns topic, remark, .* no known format"),
        (
            "a.jsonl",
            '{"prompt": "Hi", "completion": "Hello", "images": ["a.png"]}\n',
            "ConfigError: none of the first 1 rows .* needs_media",
        ),
        (
            "a.jsonl",
            '{"prompt": "Hi", "completion": "Hey", "chosen": "Hello", "rejected": "What?"}\n',
            "ConfigError: .* --kind demonstrations .* --kind preferences",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error_and_nothing_is_written(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    code, told = init(str(tmp_path / name), "--output", str(tmp_path / "r.yaml"))
    assert code == 2
    assert re.search(message, told), told
    assert not (tmp_path / "r.yaml").exists()
