"""``python -m tests.fuzz.worker SEED FIRST [TARGET ...]``: reads changed files, and says what became of each."""

import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from preflow.errors import PreflowError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Target, targets

#: Bytes that reading may take above what the process holds when it begins.
MOST_MEMORY = 2**30


def main(seed: int, first: int, names: list[str]) -> None:
    """Read one case after the other until the process is ended."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as made:
        all_targets = targets(Path(made))
        chosen = {name: all_targets[name] for name in names or all_targets}
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        number = first
        while True:
            with tempfile.TemporaryDirectory() as folder:
                one(seed, number, chosen, Path(folder), base)
            number += 1


def case(seed: int, number: int, chosen: dict[str, Target]) -> tuple[str, str, bytes]:
    """Target, file name and bytes of a case; the same for the same seed and number."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(sorted(chosen))
    seeds = chosen[name].seeds
    file, other = rng.choice(sorted(seeds)), rng.choice(sorted(seeds))
    return name, file, mutated(rng, seeds[file], seeds[other])


def one(seed: int, number: int, chosen: dict[str, Target], folder: Path, base: int) -> None:
    """Read one case and print what came of it."""
    name, file, data = case(seed, number, chosen)
    tell({"case": number, "target": name, "file": file})
    started = time.monotonic()
    fault = None
    try:
        chosen[name].read(file, data, folder)
        outcome = "read"
    except PreflowError:
        outcome = "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome, fault = "fault", traceback.format_exc(limit=-6)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
    if fault is None and memory > MOST_MEMORY:
        outcome, fault = "fault", f"the process took {memory / 2**20:.0f} MiB more than before its first case"
    tell({"outcome": outcome, "seconds": time.monotonic() - started, "memory": memory, "fault": fault})


def tell(line: dict[str, object]) -> None:
    """A line for the process that started this one."""
    os.write(_OUT, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    _OUT = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no line of ours
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
