"""Tasks of the harness's own, downloaded from a stand-in for the hub: one task, a tag of two, one without a metric."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.running.preparation import prepare_run, with_named_prompts
from preflow.errors import ConfigError
from tests.fixtures.hub_server import Repos, hub_server
from tests.fixtures.prepared_run import Run

pytestmark = pytest.mark.slow  # loads a model and the harness

#: Does each task alone with one model; what came of it is one line of standard output.
DO = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from preflow.benchmarks.harness import Harness
from preflow.benchmarks.tasks import tasks_of
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.errors import PreflowError

model, tokenizer = (kind.from_pretrained(sys.argv[1]) for kind in (AutoModelForCausalLM, AutoTokenizer))
for name in sys.argv[2:]:
    settings = BenchmarkSettings(tasks=(name,))
    try:
        found = Harness().run(model, tokenizer, tasks_of(settings.tasks), settings)
        print(json.dumps({task: [[each.id, each.metric, each.value] for each in rows] for task, rows in found.items()}))
    except PreflowError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def endings(number: int) -> dict[str, Any]:
    known = {"ctx_a": f"A cook stirs pot {number}.", "ctx_b": "then she", "activity_label": "Cooking", "label": "1"}
    return {**known, "endings": ["flies.", "tastes it.", "is a pot.", "sings red."], "split": "val", "ind": number}


def question(number: int, kind: str) -> dict[str, Any]:
    choices = {"text": ["ice", "steam", "sand", "wood"], "label": ["A", "B", "C", "D"]}
    return {"id": str(number), "question": f"{kind} {number}: what is hot?", "choices": choices, "answerKey": "B"}


def hub() -> Repos:
    splits = ("train", "validation", "test")
    arc = {f"{kind}/{side}.jsonl": lines(*(question(n, kind) for n in range(3))) for kind in ARC for side in splits}
    configs = [
        {"config_name": kind, "data_files": [{"split": side, "path": f"{kind}/{side}.jsonl"} for side in splits]}
        for kind in ARC
    ]
    page = lines({"page": "The cook tastes the soup."})
    wiki = [{"config_name": "wikitext-2-raw-v1", "data_files": [{"split": n, "path": f"{n}.jsonl"} for n in splits]}]
    return {
        "Rowan/hellaswag": {
            "v1": {f"data/{side}.jsonl": lines(*(endings(n) for n in range(5))) for side in ("train", "validation")}
        },
        "allenai/ai2_arc": {"v1": {**arc, "README.md": card(configs)}},
        "EleutherAI/wikitext_document_level": {
            "v1": {**{f"{side}.jsonl": page for side in splits}, "README.md": card(wiki)}
        },
    }


def card(configs: list[dict[str, Any]]) -> bytes:
    return f"---\nconfigs: {json.dumps(configs)}\n---\n".encode()


ARC = ("ARC-Easy", "ARC-Challenge")


def test_tasks_by_name_are_downloaded_and_done_document_by_document(prepared: Run, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with hub_server(hub()) as (address, asked):
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
        names = ("hellaswag", "ai2_arc", "wikitext", "nosuchtask", "copa")
        done = subprocess.run(
            [sys.executable, "-c", DO, str(prepared.base.path), *names],
            check=False,
            env={**inherited, **own},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    one, tag, *refused = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    assert [[metric, value in (0, 1)] for _, metric, value in one["hellaswag"]] == [["acc", True]] * 5
    assert len({name for name, _, _ in tag["ai2_arc"]}) == 6, "three documents of each of the tag's two tasks"
    messages = (
        "wikitext cannot be compared document by document: of its metrics (word_perplexity, byte_perplexity, ",
        "the benchmark nosuchtask cannot be loaded: Spec 'nosuchtask' is not a registered task",
        "the benchmark copa cannot be loaded: ",
    )
    for (kind, said), message in zip(refused, messages, strict=True):
        assert (kind, message in said) == ("ConfigError", True), said
    assert any("Rowan/hellaswag" in each for each in asked)


def test_their_prompts_must_not_train(tmp_path: Path) -> None:
    """Of 8 rows the second repeats a document of one task, the fourth that of a part of a tag, in capitals."""
    rows = [{"prompt": f"Which shop sells article {n}?", "completion": f"Shop {n}."} for n in range(8)]
    rows[1]["prompt"] = "Cooking: a cook stirs pot 3. Then she"
    rows[3]["prompt"] = "ARC-EASY 1: WHAT IS HOT?"
    (tmp_path / "sft.jsonl").write_bytes(lines(*rows))
    values = {"strategy": "sft", "dataset": "sft.jsonl", "validation": {"minimum_rows": 1}}
    asked = {"evaluation": {"benchmarks": {"tasks": ["hellaswag", "ai2_arc"]}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**values, **asked}))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with hub_server(hub()) as (address, _):
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "flows.validate", str(tmp_path / "recipe.yaml"), "--json"],
            check=False,
            env={**inherited, **own, "PREFLOW_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    assert json.loads(done.stdout)["demonstrations"]["findings"]["in_benchmark"]["rows"] == {"sft.jsonl": [2, 4]}


def test_a_task_that_is_not_to_be_had_is_known_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    values = {"model_name": "m", "strategy": "sft", "dataset": "sft.jsonl"}
    asked = {"evaluation": {"benchmarks": {"tasks": ["helaswag"]}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**values, **asked}))
    prepared = prepare_run(tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match=r"the benchmark helaswag cannot be loaded: Spec 'helaswag' is not"):
        with_named_prompts(prepared.sources, prepared.recipe, every=True)
