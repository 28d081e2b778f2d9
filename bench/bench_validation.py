"""Speed and memory of data validation against the work that cannot be avoided, measured in the same run.

``python -m bench.bench_validation [--quick]`` makes files of 10,000, 100,000 and 1,000,000 pairs of 0.5 kB, prints
rows per second of each, and one JSON line last. The limit is the sum of three passes on one core: reading and parsing
the file, one string similarity per row over both responses, one MinHash signature per row. Validation runs in a process
of its own, without a tokenizer; its memory is that of the process and its workers above what its imports take.

``--tokenizer FOLDER`` also measures counting tokens against the tokenizer's own batch call on the same texts, in turns.
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from bench.parts.process_watch import Watch, cpu_seconds, data_bytes

SIZES = (10_000, 100_000, 1_000_000)
_WORDS = 20_000
#: Pairs whose tokens are counted, and how often by each way.
_COUNTED, _ROUNDS = 20_000, 5
_LIMIT_TOKENS = 1024
Way: TypeAlias = Callable[[], None]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Stop at 100,000 pairs.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where the files are made; a temporary folder if not given.")
    ] = None,
    memory_mb: Annotated[int | None, typer.Option(help="The recipe's memory budget.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder of a tokenizer: also measure counting tokens with it.")
    ] = None,
    child: Annotated[Path | None, typer.Option(hidden=True)] = None,
    data_limit_mb: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure validation."""
    if child is not None:
        gate(child, memory_mb, data_limit_mb)
        return
    with tempfile.TemporaryDirectory(dir=folder) as place:
        results = [measure(size, Path(place), memory_mb) for size in SIZES[: 2 if quick else 3]]
        counted = count(tokenizer, Path(place)) if tokenizer is not None else {}
    for found in results:
        gate_rate, limit_rate = (found["rows"] / found[name] for name in ("seconds", "limit"))
        print(
            f"{found['rows']:>9,} pairs, {found['bytes'] / 1e6:6.1f} MB: gate {gate_rate:8,.0f} rows/s "
            f"({found['seconds']:.1f} s), limit {limit_rate:8,.0f} rows/s, "
            f"ratio {found['seconds'] / found['limit']:.2f}, peak memory {found['memory'] / 1e6:6.0f} MB"
        )
    last, before = results[-1], results[-2]
    costs = [found["seconds"] / found["rows"] for found in (last, before)]
    name = "cost_per_row_100k_over_10k" if quick else "cost_per_row_1m_over_100k"
    summary = {
        "ratio_to_limit": last["seconds"] / last["limit"],
        name: costs[0] / costs[1],
        "peak_memory_over_file": last["memory"] / last["bytes"],
        "rows_per_second": last["rows"] / last["seconds"],
        # The same ratio in seconds of CPU, half of them on each of two cores: what a machine shared with others leaves.
        "ratio_in_cpu_seconds_on_two_cores": last["cpu"] / 2 / last["limit_cpu"],
        **counted,
    }
    print(json.dumps({key: round(value, 3) for key, value in summary.items()}))


def measure(rows: int, place: Path, memory_mb: int | None) -> dict[str, float]:
    """Make a file, measure the limit and validation on it."""
    file = place / f"pairs-{rows}.jsonl"
    make(file, rows)
    begin = time.process_time()
    limit = sum(unavoidable_work(file).values())
    limit_cpu = time.process_time() - begin
    found = run_gate_apart(file, memory_mb)
    assert found.pop("set_aside") == 0, "random words are clean"
    size = file.stat().st_size
    file.unlink()
    return {"rows": rows, "bytes": size, "limit": limit, "limit_cpu": limit_cpu, **found}


def count(folder: str, place: Path) -> dict[str, float]:
    """Count tokens by validation and by the tokenizer's own batch call in turns, on the same cores, both loaded before.

    Validation reads the rows from its own files; the tokenizer gets their texts from memory, in like batches.
    """
    import numpy as np

    from expectations.row_facts import read_kind
    from preflow.config.base import Rendering
    from preflow.config.validation import ValidationSettings
    from preflow.data.files.sources import resolve_sources
    from preflow.data.quality.sets.token_counts import BATCH, count_tokens, load_renderer
    from preflow.observer import Silent

    file = place / "tokens.jsonl"
    make(file, _COUNTED)
    sources = resolve_sources([str(file)])
    work = place / "columns"
    columns = read_kind("preferences", {"train": sources, "eval": ()}, work, ValidationSettings(), Silent())
    texts = [text for line in file.open(encoding="utf-8") for text in json.loads(line).values()]
    renderer = load_renderer(folder, Rendering())
    encode = renderer.tokenizer.backend_tokenizer.encode_batch_fast

    def own() -> None:
        for start in range(0, len(texts), 3 * BATCH):
            encode(texts[start : start + 3 * BATCH], add_special_tokens=False)

    every = np.ones(columns.total, bool)

    def ours() -> None:
        count_tokens(columns, renderer, _LIMIT_TOKENS, every)

    own()  # the first words fill the tokenizer's cache
    seconds, cpu = _in_turns(own, ours)
    rates = {way: _COUNTED / statistics.median(taken) for way, taken in seconds.items()}
    rounds = [theirs / ours_ for theirs, ours_ in zip(seconds[own], seconds[ours], strict=True)]
    print(
        f"{_COUNTED:>9,} pairs, counting tokens: gate {rates[ours]:8,.0f} rows/s, the tokenizer's own batches "
        f"{rates[own]:8,.0f} rows/s; ratio by round {', '.join(f'{ratio:.2f}' for ratio in rounds)}"
    )
    return {
        "token_rate_over_tokenizer": statistics.median(rounds),
        "token_rate_in_cpu_seconds": cpu[own] / cpu[ours],
        "token_rows_per_second": rates[ours],
    }


def _in_turns(*ways: Way) -> tuple[dict[Way, list[float]], dict[Way, float]]:
    """Wall-clock seconds of every round of each way, and CPU seconds of all its rounds."""
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for _ in range(_ROUNDS):
        for way, taken in seconds.items():
            begin, cpu_before = time.perf_counter(), time.process_time()
            way()
            taken.append(time.perf_counter() - begin)
            cpu[way] += time.process_time() - cpu_before
    return seconds, cpu


def make(file: Path, rows: int, times: int = 1) -> None:
    """Pairs of random words with the lengths of short answers, or so many times longer; drawn from a fixed seed."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(_WORDS)]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=times * rng.randint(low, high))).capitalize() + "."

    with file.open("w", encoding="utf-8") as handle:
        for _ in range(rows):
            row = {"prompt": text(10, 22), "chosen": text(20, 36), "rejected": text(20, 36)}
            handle.write(json.dumps(row) + "\n")


def unavoidable_work(file: Path) -> dict[str, float]:
    """Seconds of reading, comparing and signing every row once, on one core."""
    import orjson
    from rapidfuzz import fuzz
    from rensa import RMinHash

    def sign(row: dict[str, str]) -> None:
        sketch = RMinHash(128, 42)
        sketch.update(f"{row['prompt']} {row['chosen']} {row['rejected']}".split())
        sketch.digest()

    seconds = {"read": 0.0, "similarity": 0.0, "signature": 0.0}
    with file.open("rb") as handle:
        while True:
            begin = time.perf_counter()
            rows = [orjson.loads(line) for line in handle.readlines(1 << 24)]
            seconds["read"] += time.perf_counter() - begin
            if not rows:
                return seconds
            seconds["similarity"] += _timed(lambda row: fuzz.token_sort_ratio(row["chosen"], row["rejected"]), rows)
            seconds["signature"] += _timed(sign, rows)


def _timed(work: Callable[[dict[str, str]], Any], rows: list[dict[str, str]]) -> float:
    begin = time.perf_counter()
    for row in rows:
        work(row)
    return time.perf_counter() - begin


def run_gate_apart(file: Path, memory_mb: int | None, data_limit_mb: int | None = None) -> dict[str, float]:
    """Seconds and bytes of validation on one file, in a process of its own."""
    command = [sys.executable, "-m", "bench.bench_validation", "--child", str(file)]
    for option, value in (("--memory-mb", memory_mb), ("--data-limit-mb", data_limit_mb)):
        command += [option, str(value)] if value is not None else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"validation failed on {file}:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def gate(file: Path, memory_mb: int | None, data_limit_mb: int | None) -> None:
    """Run validation here and print its seconds and its memory above the imports as JSON.

    With ``data_limit_mb`` the kernel refuses this process more private memory than that above the imports, and each of
    its workers likewise.
    """
    from expectations.gate import run_gate
    from preflow.config.validation import ValidationSettings
    from preflow.data.files.sources import resolve_sources
    from preflow.errors import DataUnfitError
    from preflow.observer import Silent
    from preflow.specs import ValidateSpec

    chosen: dict[str, Any] = {} if memory_mb is None else {"memory_mb": memory_mb}
    settings = ValidationSettings(**chosen)
    spec = ValidateSpec(preferences=resolve_sources([str(file)]), settings=settings)
    warm_up(spec.settings)
    if data_limit_mb is not None:
        here = data_bytes() + data_limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (here, here))
    watch = Watch()
    with tempfile.TemporaryDirectory(dir=file.parent) as out, watch:
        begin, cpu_before = time.perf_counter(), cpu_seconds()
        with suppress(DataUnfitError):  # rows that are all alike
            run_gate(spec, Path(out), Silent())
        seconds = time.perf_counter() - begin
        cpu = cpu_seconds() - cpu_before
        report = json.loads((Path(out) / "report.json").read_text(encoding="utf-8"))
    aside = report["preferences"]["set_aside"]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "memory": watch.peak - watch.start, "set_aside": aside}))


def warm_up(settings: Any) -> None:
    """Import what validation imports where it is used."""
    from expectations.gate import run_gate
    from preflow.data.files.sources import resolve_sources
    from preflow.observer import Silent
    from preflow.specs import ValidateSpec

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "few.jsonl"
        make(file, 200)
        (Path(place) / "out").mkdir()
        run_gate(
            ValidateSpec(preferences=resolve_sources([str(file)]), settings=settings), Path(place) / "out", Silent()
        )


if __name__ == "__main__":
    typer.run(main)
