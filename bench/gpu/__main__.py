"""Runs the parts of the GPU check in order: ``python -m bench.gpu --out FOLDER [--only PART] [--dry] [--seconds N]``.

Each part has its own time limit, to which what earlier parts left unused is added, and all together 5 minutes. Every
line of figures is printed as JSON and added to ``results.jsonl`` as soon as it is there; at the end every figure that
has a target is said to be met or missed. The exit code is 1 where a part failed or was stopped, or a target was missed
on a GPU.
"""

import json
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import psutil
import torch
import typer

from bench.gpu import device, generation, memory, scoring, suite, training
from bench.gpu.processes import Part, run_part, start_method
from bench.gpu.targets import judged
from bench.gpu.workload import workload

#: Parts in order, with their shares of the time.
PARTS: dict[str, tuple[Part, float]] = {
    "device": (device.run, 0.05),
    "tests": (suite.run, 0.24),
    "dpo": (training.run_dpo, 0.27),
    "sft": (training.run_sft, 0.15),
    "scoring": (scoring.run, 0.10),
    "memory": (memory.run, 0.12),
    "generation": (generation.run, 0.07),
}


class Results:
    """The lines, printed and written as they come."""

    def __init__(self, out: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self._file = out / "results.jsonl"
        self._file.write_text("", encoding="utf-8")

    def add(self, part: str, line: dict[str, Any]) -> None:
        """Keep a line of a part."""
        self.lines.append({"part": part, **line})
        text = json.dumps(self.lines[-1])
        print(text, flush=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("build/gpu_check"),
    only: Annotated[list[str] | None, typer.Option(help=f"One part of {', '.join(PARTS)}; may be repeated.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Tiny sizes, on the CPU.")] = False,
    seconds: Annotated[float, typer.Option(help="Time of all parts together.")] = 300,
) -> None:
    """Check a GPU, or with --dry the check itself."""
    if unknown := set(only or ()) - set(PARTS):
        raise typer.BadParameter(f"no part is called {', '.join(sorted(unknown))}; they are {', '.join(PARTS)}")
    if not dry and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no GPU here; --dry runs tiny sizes on the CPU")
    begin = time.monotonic() - (time.time() - psutil.Process().create_time())  # imports count
    method = start_method("cpu" if dry else "cuda")
    work = workload(dry, method)
    out.mkdir(parents=True, exist_ok=True)
    results, whole = Results(out), True
    chosen = {name: share for name, (_, share) in PARTS.items() if not only or name in only}
    for name, end in deadlines(chosen, seconds).items():
        started = time.monotonic()
        limit = begin + end - started
        state = run_part(PARTS[name][0], work, out.resolve(), limit, lambda line, name=name: results.add(name, line))  # type: ignore[misc]
        whole &= state == "done"
        results.add(name, {"state": state, "seconds": round(time.monotonic() - started, 1)})
    missed = [] if dry else _tell_targets(results)
    print(f"{time.monotonic() - begin:.0f} s in all, processes by {method}; results in {out}", flush=True)
    raise typer.Exit(0 if whole and not missed else 1)


def deadlines(shares: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Seconds after the beginning by which each part must have ended: its share after the one before it."""
    ends = accumulate(shares.values())
    return {name: seconds * end / sum(shares.values()) for name, end in zip(shares, ends, strict=True)}


def _tell_targets(results: Results) -> list[dict[str, Any]]:
    """Print and keep every figure that has a target; gives those that were missed."""
    verdicts = list(judged(results.lines))
    for verdict in verdicts:
        results.add("targets", {f"of_{name}" if name == "part" else name: value for name, value in verdict.items()})
    for verdict in verdicts:
        print("{verdict:7s} {part:10s} {case:9s} {figure:28s} {value:8.3f}  ({target})".format(**verdict))
    return [verdict for verdict in verdicts if verdict["verdict"] == "missed"]


if __name__ == "__main__":
    typer.run(main)
