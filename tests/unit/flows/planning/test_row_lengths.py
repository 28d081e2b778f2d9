"""Lengths of a recipe's rows, split as data validation splits them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from expectations.gate import run_gate
from flows.planning.devices import Device, on_gpu
from flows.planning.row_lengths import Rows, position_warnings, read_lengths, read_model
from flows.planning.tables import estimate_run
from flows.running.preparation import PreparedRun, prepare_run
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs
from preflow.data.validated import Split, load_demonstrations, load_pairs
from preflow.errors import ConfigError
from preflow.models.loading import load_tokenizer
from preflow.models.resolve import ModelRef
from preflow.observer import Silent
from tests.unit.data.prompt_hashes import is_held_out, prompt_hash


def validated(prepared: PreparedRun, out: Path) -> Artifact:
    """The output of data validation."""
    out.mkdir()
    run_gate(prepared.sources, out, Silent())
    return Artifact(path=str(out), digest="", bytes=0)


@pytest.mark.slow
def test_rows_are_split_as_validation_splits_them(tiny_recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """Files sorted by length, and a demonstration whose prompt is held out among the pairs, which validation moves out.

    The lengths of the plan's rows are those of the rows that validation wrote.
    """
    file = tiny_recipe_file()
    preferences, demonstrations = tmp_path / "preferences.jsonl", tmp_path / "demonstrations.jsonl"
    rows = sorted(preferences.read_text().splitlines(), key=len)
    preferences.write_text("\n".join(rows) + "\n")
    prompt = next(p for p in (json.loads(row)["prompt"] for row in rows) if is_held_out(prompt_hash(p), 0.2))
    with demonstrations.open("a") as more:
        more.write(json.dumps({"prompt": prompt, "completion": "assistant refund"}) + "\n")
    prepared = prepare_run(file, {"sft.eval_split": "0.01"})
    model = read_model(prepared.recipe)
    data, seen = validated(prepared, tmp_path / "validated"), read_lengths(prepared, model)
    renderer = Renderer(load_tokenizer(model, prepared.recipe), prepared.recipe.template)
    splits: tuple[Split, ...] = ("train", "eval")
    for split in splits:
        texts, _ = tokenize_demonstrations(load_demonstrations(data, split), renderer, 256, "drop")
        pairs, _ = tokenize_pairs(load_pairs(data, split), renderer, 256, "drop")
        got = [sorted(getattr(seen[stage], "train" if split == "train" else "held_out")) for stage in ("sft", "dpo")]
        assert got[0] == sorted((len(row.input_ids), sum(row.response_mask)) for row in texts)
        assert got[1] == sorted((len(row.prompt_ids), len(row.chosen_ids), len(row.rejected_ids)) for row in pairs)
    assert len(seen["dpo"].held_out) > 0
    assert len(seen["sft"].train) + len(seen["sft"].held_out) == len(demonstrations.read_text().splitlines()) - 1


def test_a_tokenizer_runs_its_own_code_where_recipe_and_environment_allow_it_and_never_in_a_plan(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    own = AutoTokenizer.from_pretrained

    def recorded(*args: Any, **options: Any) -> Any:
        asked.append(options.get("trust_remote_code"))
        return own(*args, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", recorded)
    with pytest.raises(ConfigError, match="PREFLOW_ALLOW_REMOTE_CODE=1"):
        prepare_run(tiny_recipe_file(), {"trust_remote_code": "true"})
    monkeypatch.setenv("PREFLOW_ALLOW_REMOTE_CODE", "1")
    prepared = prepare_run(tiny_recipe_file(), {"trust_remote_code": "true"})
    read_lengths(prepared, read_model(prepared.recipe))
    estimate_run(prepared, Device("", on_gpu(prepared.recipe), 8e9, None))
    assert asked == [True, False]
    monkeypatch.delenv("PREFLOW_ALLOW_REMOTE_CODE")  # as in a worker that gets the prepared recipe
    with pytest.raises(ConfigError, match="trust_remote_code"):
        load_tokenizer(read_model(prepared.recipe), prepared.recipe)


def test_a_plan_warns_of_rows_beyond_a_rotary_models_positions(tiny_folder: Path, tmp_path: Path) -> None:
    """A demonstration is as long as its first count, a pair as its prompt with the longer answer."""
    shutil.copytree(tiny_folder, tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 20}))
    recipe = Recipe.model_validate({"model_name": "short"})
    base = ModelRef(name="short", path=str(tmp_path / "short"), digest="")
    rows = {"sft": Rows([(21, 30), (20, 20)], [], 0), "dpo": Rows([(10, 10, 3)], [(10, 3, 12)], 0)}
    warnings = position_warnings(recipe, base, rows)
    assert [line.partition(" positions")[0] for line in warnings] == [
        "1 of 2 demonstrations are longer than the 20",
        "1 of 2 pairs are longer than the 20",
    ]
    assert "(longest: 22 tokens)" in warnings[1]
    assert position_warnings(recipe, base, {"dpo": Rows([(10, 10, 3)], [], 0)}) == []
