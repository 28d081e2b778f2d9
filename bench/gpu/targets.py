"""What counts as good on a real GPU, by figure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A bound on one figure of every line of a part that has it.

    Attributes:
        part: Whose lines.
        figure: Keys to the figure, from the outside in.
        least: Whether the bound is the least value, else the greatest.
        bound: The value.
    """

    part: str
    figure: tuple[str, ...]
    least: bool
    bound: float

    def value(self, line: Mapping[str, Any]) -> float | None:
        """The figure in a line; None where the line is not of the part, or has none."""
        found: Any = line if line.get("part") == self.part else None
        for key in self.figure:
            found = found.get(key) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    def met(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        return value >= self.bound if self.least else value <= self.bound


TARGETS = (
    Target("tests", ("failed",), False, 0),
    Target("tests", ("exit_code",), False, 0),
    Target("dpo", ("speedup", "live"), True, 2.5),
    Target("dpo", ("speedup", "precomputed"), True, 1.8),
    Target("dpo", ("memory_ratio", "live"), False, 0.5),
    Target("dpo", ("memory_ratio", "precomputed"), False, 0.5),
    Target("dpo", ("share_of_matrix_rate",), True, 0.45),
    Target("sft", ("memory_ratio", "trl"), False, 0.5),
    Target("sft", ("share_of_matrix_rate",), True, 0.45),
    Target("scoring", ("speedup", "trl_8"), True, 3.0),
    Target("memory", ("error",), False, 0.15),
)


def judged(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every figure that has a target, whether met or missed, in the order of the lines."""
    for line in lines:
        case = line.get("rows", line.get("case", ""))
        for target in TARGETS:
            value = target.value(line)
            if value is not None:
                yield {
                    "part": target.part,
                    "case": case,
                    "figure": " ".join(target.figure),
                    "value": value,
                    "target": f"{'at least' if target.least else 'at most'} {target.bound:g}",
                    "verdict": "met" if target.met(value) else "missed",
                }
