"""``python -m tests.faults``: runs the kill matrix cell by cell and prints it as a table.

Results are kept in a state file: started again, it goes on with the cells that have none. ``--again`` repeats those
that did not hold.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.faults.cells import DATABASES, Cell, Result, all_cells, bench
from tests.faults.injections import FAULTS, STAGES

#: What is known of each cell, by its name.
State = dict[str, dict[str, Any]]
#: Seconds of an outage, as the matrix names it.
OUTAGE = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells that are asked for; 1 where one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--cells", nargs="*", default=[], metavar="FAULT[/STAGE]", help="only these cells")
    parser.add_argument("--database", choices=DATABASES, help="only with this database of Prefect's")
    parser.add_argument("--state", type=Path, default=Path("build/faults.json"), help="the state file")
    parser.add_argument("--outage", type=float, default=OUTAGE, metavar="SECONDS", help="how long servers are away")
    parser.add_argument("--again", action="store_true", help="repeat cells that did not hold")
    parser.add_argument("--keep", type=Path, help="a folder for the servers' and workers' files and logs")
    given = parser.parse_args(arguments)
    state = read_state(given.state)
    asked = [cell for cell in all_cells() if _is_asked(cell, given.cells, given.database)]
    wanted = [cell for cell in asked if str(cell) not in state or (given.again and state[str(cell)]["faults"])]
    for database in DATABASES:
        run_cells([cell for cell in wanted if cell.database == database], database, given, state)
    print(table(asked, state))
    return int(any(state.get(str(cell), {"faults": ["not run"]})["faults"] for cell in asked))


def _is_asked(cell: Cell, names: Sequence[str], database: str | None) -> bool:
    if database not in (None, cell.database):
        return False
    return not names or any(name in (cell.fault, f"{cell.fault}/{cell.stage}", f"*/{cell.stage}") for name in names)


def run_cells(cells: list[Cell], database: str, given: argparse.Namespace, state: State) -> None:
    """Run cells of one database; after one that does not hold, the servers begin anew."""
    left = list(cells)
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
    while left:
        folder = Path(tempfile.mkdtemp(prefix=f"{database}-", dir=given.keep))
        with bench(folder, database) as made:
            while left:
                cell = left.pop(0)
                print(f"{cell} ...", flush=True)
                try:
                    result = made.run(cell, given.outage)
                except (AssertionError, OSError, httpx.HTTPError, psutil.Error, subprocess.SubprocessError) as error:
                    result = Result(cell, (f"{type(error).__name__}: {error}",), 0.0, "did not end")
                said = "; ".join(result.faults) or "ok"
                print(f"{cell}: {said} ({result.how}, {result.seconds:.0f} s, {folder})", flush=True)
                state[str(cell)] = {"faults": list(result.faults), "how": result.how, "seconds": result.seconds}
                write_state(given.state, state)
                if result.faults:
                    break


def read_state(file: Path) -> State:
    """Results by cell."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write_state(file: Path, state: State) -> None:
    """Keep results; a kill leaves the last whole file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=1), encoding="utf-8")
    partial.replace(file)


def table(cells: Sequence[Cell], state: State) -> str:
    """The matrix: a row for each fault, a column for each stage, ``-`` where a fault cannot happen."""
    lines = []
    for database in dict.fromkeys(cell.database for cell in cells):
        rows = [[f"Prefect on {database}", *STAGES]]
        for fault in FAULTS:
            found = {cell.stage: cell for cell in cells if (cell.database, cell.fault) == (database, fault)}
            if found:
                rows.append([fault, *(_shown(found.get(stage), state) for stage in STAGES)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
        lines += ["  ".join(row).rstrip() for row in padded]
        lines.append("")
    return "\n".join(lines)


def _shown(cell: Cell | None, state: State) -> str:
    if cell is None:
        return "-"
    result = state.get(str(cell))
    return "not run" if result is None else "FAILED" if result["faults"] else "ok"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in order: no server outlives it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
