"""The tool for the log-prob store: ``python -m preflow.stages.reference``."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import fsspec
import numpy as np
import pyarrow as pa
import typer
from pydantic import ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from preflow.home import logprobs_url
from preflow.observer import Silent
from preflow.stages.logprob_store import REFERENCE_FILE
from preflow.stages.shards import ShardFolder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="The store of reference log-probs.")
_DAY = 24 * 3600.0
#: Half-written files of killed processes are removed when they are this old.
_ABANDONED = 3600.0
_OUT = Console(highlight=False)
_URL = Annotated[str | None, typer.Option(help="The store; PREFLOW_LOGPROBS, or the one of PREFLOW_HOME, without it.")]


@dataclass(frozen=True, slots=True)
class Holding:
    """What the store holds of one reference.

    Attributes:
        folder: Its shards.
        names: Their names.
        label: The model, for people.
        rows: Responses stored.
        bytes: Size of the shards.
        newest: When the newest row was computed, seconds since 1970.
        usage: What each run asked.
    """

    folder: ShardFolder
    names: list[str]
    label: str
    rows: int
    bytes: int
    newest: float
    usage: list[dict[str, float]]

    def asked(self, name: str) -> float:
        """A number of all runs together."""
        return sum(entry.get(name, 0.0) for entry in self.usage)


def holdings(url: str) -> list[Holding]:
    """Every reference in a store, the newest last."""
    files, path = fsspec.core.url_to_fs(url)
    if not files.exists(path):
        return []
    found = [entry for entry in files.ls(path, detail=True) if entry["type"] == "directory"]
    return sorted((_holding(files, entry["name"], url) for entry in found), key=lambda holding: holding.newest)


def _holding(files: Any, path: str, url: str) -> Holding:
    name = path.rstrip("/").rpartition("/")[2]
    entries = {entry["name"].rpartition("/")[2]: entry for entry in files.ls(path, detail=True)}
    about = json.loads(files.cat_file(f"{path}/{REFERENCE_FILE}")) if REFERENCE_FILE in entries else {}
    folder = ShardFolder(f"{url}/{name}", about.get("digest", ""))
    shards = sorted(entry for entry in entries if entry.endswith(".parquet"))
    tables = [table for shard in shards if (table := folder.read(shard)) is not None] if about else []
    keys = [table.column("key").to_numpy(zero_copy_only=False) for table in tables]
    return Holding(
        folder=folder,
        names=shards,
        label=str(about.get("label", "unknown")),
        rows=len(np.unique(np.concatenate(keys).astype("S16"))) if keys else 0,
        bytes=sum(entries[shard]["size"] for shard in shards),
        newest=max((max(table.column("created").to_pylist()) for table in tables if len(table)), default=0.0),
        usage=[json.loads(files.cat_file(f"{path}/{e}")) for e in sorted(entries) if e.startswith("usage-")],
    )


@app.command()
def show(url: _URL = None) -> None:
    """What the store holds: references, responses, size, how many of the rows asked for were there, time saved."""
    place = url or logprobs_url()
    found = holdings(place)
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("reference", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in ("responses", "size", "rows hit", "saved", "newest"):
        table.add_column(name, no_wrap=True, justify="right")
    for holding in found:
        asked, hit = holding.asked("rows_asked"), holding.asked("rows_hit")
        table.add_row(
            holding.folder.path.rpartition("/")[2][:8],
            holding.label,
            f"{holding.rows:,}",
            _size(holding.bytes),
            f"{hit / asked:.0%} of {asked:,.0f}" if asked else "-",
            _duration(holding.asked("seconds_saved")),
            time.strftime("%Y-%m-%d", time.localtime(holding.newest)) if holding.newest else "-",
        )
    if found:
        _OUT.print(table)
    rows, size = sum(holding.rows for holding in found), sum(holding.bytes for holding in found)
    _OUT.print(f"{place}: {len(found)} references, {rows:,} responses, {_size(size)}", soft_wrap=True)


@app.command()
def prune(
    older_than: Annotated[float | None, typer.Option(min=0, help="Remove rows older than so many days.")] = None,
    reference: Annotated[str | None, typer.Option(help="Only of this reference: the beginning of its name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and keep it.")] = False,
    url: _URL = None,
) -> None:
    """Remove rows by age, by reference, or both. What is asked for again is computed again."""
    if older_than is None and reference is None:
        raise typer.BadParameter("nothing says what to remove: give --older-than DAYS, --reference NAME, or both")
    found = holdings(url or logprobs_url())
    if not found:
        _OUT.print(f"{url or logprobs_url()}: nothing is stored, nothing to remove", soft_wrap=True)
        return
    chosen = [h for h in found if h.folder.path.rpartition("/")[2].startswith(reference or "")]
    if not chosen:
        names = ", ".join(h.folder.path.rpartition("/")[2][:12] for h in found)
        raise typer.BadParameter(f"no reference begins with {reference!r}; the store holds {names}")
    for holding in chosen:
        before = None if older_than is None else time.time() - older_than * _DAY
        removed = _prune(holding, before, dry_run=dry_run)
        verb = "would remove" if dry_run else "removed"
        _OUT.print(f"{holding.folder.path.rpartition('/')[2][:12]}: {verb} {removed:,} of {holding.rows:,} responses")


def _prune(holding: Holding, before: float | None, *, dry_run: bool) -> int:
    """Remove a reference's rows that were computed before a time, or all; gives their number."""
    folder = holding.folder
    if before is None:
        if not dry_run:
            folder.sweep(_ABANDONED, everything=True)
        return holding.rows
    removed = 0
    for name in holding.names:
        table = folder.read(name)
        if table is None:
            continue
        old = table.column("created").to_numpy() < before
        removed += int(old.sum())
        if dry_run or not old.any():
            continue
        if not old.all():
            folder.write(
                table.filter(pa.array(~old))
            )  # before the whole shard goes, so that no row that stays is ever missing
        folder.remove([name])
    if not dry_run:
        folder.sweep(_ABANDONED)
    return removed


@app.command()
def compute(
    spec: Annotated[Path, typer.Argument(help="A reference stage's specification, as JSON.", exists=True)],
) -> None:
    """Fill the store with all that a reference stage will ask for: run it under `accelerate launch` on several devices.

    The stage itself then finds everything stored.
    """
    from preflow.stages.reference import prepare
    from preflow.stages.specs import ReferenceSpec

    try:
        asked = ReferenceSpec.model_validate_json(spec.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise typer.BadParameter(f"{spec} is no specification of a reference stage: {error}") from error
    prepare(asked, Silent())


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
