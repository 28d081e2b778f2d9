"""Checkpoints that are whole: marked when they are written to their end, and found again after a kill."""

import shutil
from pathlib import Path

from preflow import distributed
from preflow.fingerprints.files import file_digest, json_digest

_WHOLE = "preflow-complete.json"


def resume_point(scratch: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed. Process 0 decides for all."""
    found = _newest_whole(scratch) if distributed.is_rank0() else None
    checkpoint: str | None = distributed.broadcast_from_rank0(found)
    return checkpoint


def _newest_whole(scratch: Path) -> str | None:
    checkpoints = sorted(scratch.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    for checkpoint in reversed(checkpoints):
        if _is_whole(checkpoint):
            return str(checkpoint)
        shutil.rmtree(checkpoint)
    return None


def mark_whole(checkpoint: Path) -> None:
    """Mark a checkpoint as written to its end, with a digest of its files."""
    (checkpoint / _WHOLE).write_text(_contents_digest(checkpoint), encoding="utf-8")


def _is_whole(checkpoint: Path) -> bool:
    mark = checkpoint / _WHOLE
    return mark.is_file() and mark.read_text(encoding="utf-8") == _contents_digest(checkpoint)


def _contents_digest(checkpoint: Path) -> str:
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != _WHOLE)
    return json_digest({p.relative_to(checkpoint).as_posix(): file_digest(p) for p in files})
