"""Files that tests of reading write, and how they read them."""

import json
from pathlib import Path
from typing import Any

from preflow.data.files.raw_rows import RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources

ROWS = [{"prompt": "Hi, you?", "completion": 'He said "é"\nand left.'}, {"prompt": "2", "completion": "zwei"}]


def read(path: Path) -> list[RawRow]:
    (source,) = resolve_sources([str(path)])
    return list(read_rows(source))


def jsonl(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


def write_csv(path: Path) -> None:
    path.write_text('prompt,completion\n"Hi, you?","He said ""é""\nand left."\n2,zwei\n', encoding="utf-8")
