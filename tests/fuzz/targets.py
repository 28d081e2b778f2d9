"""What reads other people's files, each as a function of a file's bytes, and the files that are changed for it."""

import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from expectations.row_facts import read_kind
from preflow.chat_templates.families import FAMILIES, template_text
from preflow.config import Recipe
from preflow.config.base import Rendering
from preflow.config.loading import load_recipe
from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.data.tokens.template_text import TemplateText
from preflow.data.validated import DataKind
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from tests.conftest import demonstration_rows, make_model, make_tokenizer, preference_rows

ROOT = Path(__file__).parents[2]
MEMORY_MB = 64
#: Settings of an adapter that a recipe says too, by their names there.
_ADAPTER = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "target_modules": "target_modules"}
#: What is read as the kind; everything else of a data file must be one clear error.
KINDS: tuple[DataKind, ...] = ("preferences", "demonstrations")


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes:
        seeds: Whole files by name.
        read: Reads one, given its name, its bytes and an empty folder.
    """

    seeds: dict[str, bytes]
    read: Callable[[str, bytes, Path], None]


def targets(models: Path) -> dict[str, Target]:
    """Every target by name.

    Args:
        models: Folder in which a tiny model is made.
    """
    model = make_model(models / "tiny")
    adapter = {
        "base_model_name_or_path": str(model),
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
    }
    model_files = {
        "config.json": (model / "config.json").read_bytes(),
        "tokenizer_config.json": (model / "tokenizer_config.json").read_bytes(),
        "model.safetensors.index.json": _json({"metadata": {}, "weight_map": {"a": "model.safetensors"}}),
        "adapter_config.json": _json(adapter),
        "training.json": _json({"stage": "sft"}),
    }
    recipes = {path.name: path.read_bytes() for path in (ROOT / "recipes").glob("*.yaml")}
    templates = {f"{name}.jinja": family.text().encode() for name, family in FAMILIES.items() if _is_here(family)}
    tokenizer = make_tokenizer()

    def template(name: str, data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        text = template_text(name, folder)
        TemplateText(tokenizer, Rendering(chat_template=text))

    def changed_model(name: str, data: bytes, folder: Path) -> None:
        copy = folder / "model"
        shutil.copytree(model, copy)
        if name == "adapter_config.json":
            shutil.copy(copy / "model.safetensors", copy / "adapter_model.safetensors")
        (copy / name).write_bytes(data)
        sft = {"dataset": "rows.jsonl", **{f"lora_{name}": adapter[key] for name, key in _ADAPTER.items()}}
        given: dict[str, Any] = {"model_name": str(copy), "sft": sft, "strategy": "sft"}
        resolve_model(Recipe.model_validate(given), Silent())

    return {
        "rows": Target(_row_files(), _rows),
        "recipe": Target(recipes, _recipe),
        "template": Target(templates, template),
        "model": Target(model_files, changed_model),
    }


def _is_here(family: Any) -> bool:
    try:
        return bool(family.text())
    except OSError:
        return False


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _row_files() -> dict[str, bytes]:
    """The same rows in every format, and conversations."""
    pairs, shown = preference_rows(12), demonstration_rows(12)
    turns = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "b"}]}
        for row in shown
    ]
    scored = [{**row, "score_chosen": 3.5, "score_rejected": 1, "source": None} for row in pairs]
    lines = {
        name: b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        for name, rows in {"pairs": pairs, "shown": shown, "turns": turns, "scored": scored}.items()
    }
    table, columns = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(pairs), table)
    with pa.ipc.new_file(columns, pa.Table.from_pylist(turns).schema) as writer:
        writer.write_table(pa.Table.from_pylist(turns))
    commas = "prompt,chosen,rejected\n" + "".join(f'"{r["prompt"]}","{r["chosen"]}","{r["rejected"]}"\n' for r in pairs)
    return {
        **{f"{name}.jsonl": data for name, data in lines.items()},
        "array.json": json.dumps(pairs, indent=1).encode(),
        "columns.json": json.dumps({name: [row[name] for row in pairs] for name in pairs[0]}).encode(),
        "packed.jsonl.gz": gzip.compress(lines["pairs"], mtime=0),
        "table.csv": commas.encode(),
        "table.tsv": commas.replace('","', '"\t"').encode(),
        "table.parquet": table.getvalue(),
        "turns.arrow": columns.getvalue(),
    }


def _rows(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    sources = resolve_sources([str(folder / name)])
    settings = ValidationSettings(memory_mb=MEMORY_MB, workers=1)
    kind = KINDS[len(data) % 2]
    read_kind(kind, {"train": sources, "eval": ()}, folder / "columns", settings, Silent())


def _recipe(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)
    load_recipe(folder / name)
