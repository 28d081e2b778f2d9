"""SHA-256 of files and of JSON values."""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of one file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys.

    Raises:
        ValueError: The value holds NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def folder_digest(folder: Path, names: list[str]) -> str:
    """Digest of some files of a folder by relative name and contents."""
    return json_digest({name: file_digest(folder / name) for name in sorted(names)})


def code_essence(source: str) -> str:
    """Python source as its syntax tree in text: comments, docstrings, formatting and positions do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Bare strings are a function's docstring, and those under the fields of a class.
            kept = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept
    return ast.dump(tree)
