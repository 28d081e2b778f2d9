"""How data validation stands hostile input: how time grows with one text, and with many rows that are alike.

``python -m bench.bench_hostile [--rows N]`` measures the exponent of every function of data validation that takes text,
on every kind of text in ``bench.parts.growth``, and validates N rows of one prompt, of one prompt in which one word
changes, and of one answer, against N ordinary rows. It prints the worst exponents and ratios, and one JSON line last.
"""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.bench_validation import run_gate_apart
from bench.parts.growth import INPUTS, growth, text_functions

_WORST = 10


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Rows of each set.")] = 200_000,
    functions: Annotated[bool, typer.Option(help="Measure the functions too.")] = True,
) -> None:
    """Measure growth and sets of rows that are alike."""
    found = exponents() if functions else {}
    for name, exponent in sorted(found.items(), key=lambda item: -item[1])[:_WORST]:
        print(f"{exponent:5.2f}  {name}")
    with tempfile.TemporaryDirectory() as folder:
        ratios = sets(rows, Path(folder))
    summary: dict[str, Any] = {
        "rows": rows,
        **{f"{name}_over_ordinary": round(ratio, 2) for name, ratio in ratios.items()},
    }
    if found:
        summary |= {"functions": len(text_functions()), "worst_exponent": round(max(found.values()), 2)}
    print(json.dumps(summary))


def exponents() -> dict[str, float]:
    """The exponent of each function on each kind of text where it takes measurable time."""
    found = {
        f"{name}, {kind}": growth(call, make)
        for name, call in text_functions().items()
        for kind, make in INPUTS.items()
    }
    return {name: exponent for name, exponent in found.items() if exponent is not None}


def sets(rows: int, folder: Path) -> dict[str, float]:
    """CPU seconds of validating sets of rows that are alike, over those of as many ordinary rows."""
    seconds = {}
    for name, make in SETS.items():
        file = folder / f"{name}.jsonl"
        with file.open("w", encoding="utf-8") as handle:
            texts = _texts(rows)
            handle.writelines(json.dumps(make(number, texts)) + "\n" for number in range(rows))
        seconds[name] = run_gate_apart(file, None)["cpu"]
        print(f"{name:<18} {rows:,} rows: {seconds[name]:.1f} s of CPU time")
        file.unlink()
    return {name: taken / seconds["ordinary"] for name, taken in seconds.items() if name != "ordinary"}


def _texts(rows: int) -> Callable[[], str]:
    rng = random.Random(rows)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    return lambda: " ".join(rng.choices(words, k=rng.randint(15, 30))).capitalize() + "."


_NO_DIGITS = str.maketrans("0123456789", "ghijklmnop")
_PROMPT = "Please write a short but complete explanation of the topic of {}, with examples where they help."
#: Sets by name, each a function of a row's number and of a source of random texts.
SETS: dict[str, Callable[[int, Callable[[], str]], dict[str, str]]] = {
    "ordinary": lambda _, text: {"prompt": text(), "chosen": text(), "rejected": text()},
    "one_prompt": lambda _, text: {"prompt": _PROMPT.format("rain"), "chosen": text(), "rejected": text()},
    "one_word_changed": lambda number, text: {
        "prompt": _PROMPT.format(f"subject{chr(97 + number % 26)}{number:x}".translate(_NO_DIGITS)),
        "chosen": f"The topic is {text().split()[0]}, which many people like to read about in the evening.",
        "rejected": f"No idea at all, and I do not want to say more about {text().split()[0]} than that.",
    },
    "one_answer": lambda _, text: {"prompt": text(), "chosen": _PROMPT.format("rain"), "rejected": text()},
}


if __name__ == "__main__":
    typer.run(main)
