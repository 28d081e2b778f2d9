"""Prompts of the harness's own tasks, as files that data validation holds training rows to."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from preflow.benchmarks.loading import sandboxed_templates
from preflow.benchmarks.tasks import Task
from preflow.data.files.raw_rows import DataSource
from preflow.data.quality.sets.benchmarks import PROMPT_COLUMNS


def named_prompts(tasks: Sequence[Task], loaded: Mapping[str, Mapping[str, Any]], folder: Path) -> list[DataSource]:
    """Write the prompts of tasks that have no file of their own, each task's into one file.

    Args:
        tasks: The tasks; a file's documents are files already.
        loaded: What ``load_tasks`` made of them.
        folder: Where the files are kept, by their contents.
    """
    named = [task.name for task in tasks if not task.files]
    return [_written(name, task_prompts(loaded[name].values()), folder) for name in named]


def task_prompts(parts: Iterable[Any]) -> Iterator[str]:
    """What a task of the harness asks, each text once: a training row may have any form of it.

    Of every document: its column that is named as prompts are, the longest column that is a part of the prompt, and
    the prompt as a model is given it. Where a document has several beginnings and one end, each of the beginnings.

    Args:
        parts: The harness's tasks.
    """
    seen = set()
    with sandboxed_templates():
        for part in parts:
            for document in part.eval_docs:
                for text in _texts(part, document):
                    if text.strip() and text not in seen:
                        seen.add(text)
                        yield text


def _texts(part: Any, document: Mapping[str, Any]) -> Iterator[str]:
    asked = part.doc_to_text(document)
    asked = part.doc_to_choice(document) if isinstance(asked, int) else asked
    prompts = [text for text in (asked if isinstance(asked, list) else [asked]) if isinstance(text, str)]
    columns = {name: value for name, value in document.items() if isinstance(value, str)}
    yield from [columns[name] for name in PROMPT_COLUMNS if name in columns][:1]
    shown = [value for value in columns.values() if any(value in text and value != text for text in prompts)]
    yield from sorted(shown, key=len)[-1:]
    yield from prompts


def _written(name: str, prompts: Iterable[str], folder: Path) -> DataSource:
    content = "".join(json.dumps({"prompt": text}) + "\n" for text in prompts).encode()
    digest = hashlib.sha256(content).hexdigest()
    file = folder / digest[:16] / f"{name.replace('/', '_')}.jsonl"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.write_bytes(content)
        partial.rename(file)
    return DataSource(path=str(file), digest=digest)
