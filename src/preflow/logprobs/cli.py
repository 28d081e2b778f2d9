"""The tool for the log-prob store: ``preflow store``, or ``python -m preflow.stages.reference``."""

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from preflow.console import TextConsole
from preflow.environment import logprobs_url
from preflow.errors import ArtifactError
from preflow.redaction import quoted, without_login
from preflow.units import duration, size

if TYPE_CHECKING:
    from preflow.logprobs.inventory import StoredReference
    from preflow.logprobs.key_index import Keys

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="The store of reference log-probs.")
_DAY = 24 * 3600.0
#: Half-written files of killed processes are removed when they are this old.
_ABANDONED = 3600.0
#: Files of others that are named.
_NAMED = 5
_OUT = TextConsole()
_URL = Annotated[str | None, typer.Option(help="The store; PREFLOW_LOGPROBS, or the one of PREFLOW_HOME, without it.")]


@app.command()
def show(url: _URL = None) -> None:
    """List the store: references, responses, size, share of requested rows that were hits, time saved."""
    from preflow.logprobs.inventory import inventory

    place = url or logprobs_url()
    found, others = inventory(place)
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("reference", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in ("responses", "size", "rows hit", "saved", "newest"):
        table.add_column(name, no_wrap=True, justify="right")
    for stored in found:
        asked, hit = stored.asked("rows_asked"), stored.asked("rows_hit")
        table.add_row(
            stored.name[:8],
            Text(quoted(stored.label)),
            f"{stored.rows:,}",
            size(stored.bytes),
            f"{hit / asked:.0%} of {asked:,.0f}" if asked else "-",
            duration(stored.asked("seconds_saved")),
            time.strftime("%Y-%m-%d", time.localtime(stored.newest)) if stored.newest else "-",
        )
    if found:
        _OUT.print(table)
    for stored in found:
        for name in stored.damaged:
            _OUT.print(f"damaged: {stored.name[:8]}/{name}, {size(stored.files[name])}", soft_wrap=True, markup=False)
    _print_others(others)
    rows, total = sum(stored.rows for stored in found), sum(stored.bytes for stored in found)
    _OUT.print(
        f"{_shown(place)}: {len(found)} references, {rows:,} responses, {size(total)}", soft_wrap=True, markup=False
    )


@app.command()
def prune(
    older_than: Annotated[float | None, typer.Option(min=0, help="Remove rows older than so many days.")] = None,
    reference: Annotated[str | None, typer.Option(help="Only of this reference: the first digits of its name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be removed.")] = False,
    url: _URL = None,
) -> None:
    """Remove rows by age, by reference, or both. Removed rows are computed again when a run needs them."""
    if older_than is None and reference is None:
        raise typer.BadParameter("no rows are selected: give --older-than DAYS, --reference NAME, or both")
    if reference == "":  # an unset variable of a script; every name begins with it
        raise typer.BadParameter("--reference is empty: give the first digits of a name that `show` prints")
    from preflow.logprobs.inventory import inventory

    place = url or logprobs_url()
    found, others = inventory(place)
    _print_others(others)
    if not found:
        _OUT.print(f"{_shown(place)}: nothing is stored, nothing to remove", soft_wrap=True, markup=False)
        return
    chosen = [stored for stored in found if stored.name.startswith(reference or "")]
    if not chosen:
        names = ", ".join(stored.name[:12] for stored in found)
        raise typer.BadParameter(f"no reference begins with {reference!r}; the store holds {names}")
    for stored in chosen:
        before = None if older_than is None else time.time() - older_than * _DAY
        removed, damaged = _prune(stored, before, dry_run=dry_run)
        verb = "would remove" if dry_run else "removed"
        more = f" and {damaged:,} damaged files" if damaged else ""
        _OUT.print(
            f"{stored.name[:12]}: {verb} {removed:,} of {stored.rows:,} responses{more}", soft_wrap=True, markup=False
        )


def _prune(stored: "StoredReference", before: float | None, *, dry_run: bool) -> tuple[int, int]:
    """Remove a reference's rows that were computed before a time, or all; gives how many rows and damaged files.

    Args:
        stored: The reference.
        before: Seconds since 1970.
        dry_run: Only count.
    """
    import pyarrow as pa

    from preflow.logprobs.inventory import ASIDE, different
    from preflow.logprobs.store import key_column

    folder = stored.folder
    if before is None:
        if not dry_run and (others := folder.clear()):
            names = ", ".join(map(quoted, others[:_NAMED]))
            _OUT.print(f"{stored.name[:12]}: kept, not the store's own: {names}", soft_wrap=True, markup=False)
        return stored.rows, len(stored.damaged)
    kept_keys: list[Keys] = []
    for name, keys in stored.keys.items():
        try:
            table = folder.read_checked(name)
        except (FileNotFoundError, ArtifactError):  # merged or damaged since it was counted
            kept_keys.append(keys)
            continue
        is_old = table.column("created").to_numpy() < before
        kept = table.filter(pa.array(~is_old))
        kept_keys.append(key_column(kept).copy())
        if dry_run or not is_old.any():
            continue
        if len(kept):
            folder.write(kept)  # before the whole shard is removed, so that no kept row is missing at any time
        folder.remove([name])
    age = time.time() - before
    damaged = folder.older((name for name in stored.damaged if name.endswith(ASIDE)), age)
    if not dry_run:
        folder.remove(damaged)
        folder.remove(folder.older((name for name in stored.files if name.startswith("partial-")), _ABANDONED))
    return stored.rows - len(different(kept_keys)), len(damaged)


def _print_others(names: list[str]) -> None:
    """Print the names of folders in the store that are not references and are not changed."""
    if names:
        _OUT.print(
            f"ignored, no references (no valid reference.json): {', '.join(names)}", soft_wrap=True, markup=False
        )


def _shown(url: str) -> str:
    """A store's address without a login, of chained ones too."""
    return "::".join(without_login(part) for part in re.split(r"::(?=\w+://)", url))
