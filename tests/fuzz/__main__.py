"""``python -m tests.fuzz [--minutes 30] [--seed N]``: other people's files, changed at random, are read for so long.

Each case is read or refused by one of Preflow's own errors: no other error, at most 30 seconds and 1 GiB. What fails is
kept in ``build/fuzz`` and named; the same seed gives the same cases. The last line is JSON.
"""

import collections
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from tests.fuzz.targets import ROOT, targets
from tests.fuzz.worker import MOST_MEMORY, case

SECONDS = 30.0
START_SECONDS = 300.0


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    seed: Annotated[int | None, typer.Option(help="Of all cases; another each day where not given.")] = None,
    first: Annotated[int, typer.Option(help="The first case: one that failed, to see it again.")] = 0,
    target: Annotated[list[str] | None, typer.Option(help="Targets by name; all where not given.")] = None,
    most: Annotated[int, typer.Option(help="Faults after which it ends.")] = 50,
) -> None:
    """Read changed files until the time is over; exit code 1 where one failed."""
    end = time.monotonic() + 60 * minutes
    seed = date.today().toordinal() if seed is None else seed
    found: dict[str, Any] = {"cases": 0, "outcomes": collections.Counter(), "longest_s": 0.0, "memory_mib": 0}
    faults: list[dict[str, Any]] = []
    number = first
    while time.monotonic() < end and len(faults) < most:
        number = _one_worker(seed, number, target or [], end, found, faults, most)
    kept = _keep(seed, target or [], faults)
    kinds = collections.Counter(fault["fault"].strip().splitlines()[-1][:150] for fault in faults)
    for fault, path in zip(faults, kept, strict=True):
        said = "\n".join(line[:200] for line in fault["fault"].splitlines())
        typer.echo(f"case {fault['case']} ({fault['target']}, {path}):\n{said}")
    for kind, count in kinds.most_common():
        typer.echo(f"{count} x {kind}")
    typer.echo(json.dumps({**found, "seed": seed, "minutes": minutes, "faults": len(faults)}))
    raise typer.Exit(1 if faults else 0)


def _one_worker(
    seed: int, first: int, names: list[str], end: float, found: dict[str, Any], faults: list[dict[str, Any]], most: int
) -> int:
    """Take cases from a worker until the time is over or one hangs or ends it; the case to go on with."""
    (ROOT / "build").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.worker", str(seed), str(first), *names]
    with (ROOT / "build" / "fuzz.log").open("a") as log:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    assert worker.stdout is not None
    threading.Thread(target=_follow, args=(worker.stdout, lines), daemon=True).start()
    running: dict[str, Any] = {"case": first, "target": "start", "file": ""}
    patience = START_SECONDS
    try:
        while time.monotonic() < end and len(faults) < most:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                faults.append({**running, "fault": f"it took more than {patience:g} s"})
                return int(running["case"]) + 1
            if line is None:
                faults.append({**running, "fault": f"the process ended with {worker.wait()}"})
                return int(running["case"]) + 1
            if "case" in line:
                running, patience = line, SECONDS
                continue
            found["cases"] += 1
            found["outcomes"][f"{running['target']} {line['outcome']}"] += 1
            found["longest_s"] = max(found["longest_s"], round(line["seconds"], 2))
            found["memory_mib"] = max(found["memory_mib"], round(line["memory"] / 2**20))
            if line["fault"]:
                faults.append({**running, "fault": line["fault"]})
            if line["fault"] and line["memory"] > MOST_MEMORY:
                return int(running["case"]) + 1  # a process never gives its peak back
        return int(running["case"]) + 1
    finally:
        worker.kill()
        worker.wait()


def _follow(stream: IO[str], lines: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in stream:
        lines.put(json.loads(line))
    lines.put(None)


def _keep(seed: int, names: list[str], faults: list[dict[str, Any]]) -> list[Path]:
    """Write the files that failed."""
    if not faults:
        return []
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        everything = targets(Path(made))
        chosen = {name: everything[name] for name in names or everything}
        paths = []
        for fault in faults:
            _, file, data = case(seed, fault["case"], chosen)
            paths.append(folder / f"{seed}-{fault['case']}-{file}")
            paths[-1].write_bytes(data)
    return paths


if __name__ == "__main__":
    typer.run(main)
