"""The held-out rows that a challenger and the champion are compared on: those that the champion was not trained on."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from preflow.artifacts import Artifact, build
from preflow.data.rows import Demonstration, Pair, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.validated import each_pair, load_demonstrations, load_pairs, rows_file, write_rows
from preflow.errors import PromotionError

Row = TypeVar("Row", Pair, Demonstration)


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """What a champion was trained on.

    Attributes:
        prompts: Clusters (``splits.cluster_key``) of its training rows, pairs and demonstrations.
        known: Whether the rows are there, by which this is known.
    """

    prompts: Set[str] = frozenset()
    known: bool = True

    @classmethod
    def of(cls, data: Artifact) -> Self:
        """By the artifact of the data validation of its run.

        First user turns name rows here as they do where rows are split: what was trained on once, as a demonstration or
        with other responses, is no held-out row.
        """
        pairs = {_cluster(pair) for pair in each_pair(data, "train")}
        return cls(pairs | {_cluster(row) for row in load_demonstrations(data, "train")})


@dataclass(frozen=True, slots=True)
class NewRows:
    """Held-out rows that the champion was not trained on.

    Attributes:
        data: An artifact of data validation that has these held-out rows alone.
        pairs: Held-out pairs before, and left out.
        demonstrations: The same of demonstrations.
        seen: What the champion was trained on.
    """

    data: Artifact
    seen: TrainedOn = TrainedOn()
    pairs: tuple[int, int] = (0, 0)
    demonstrations: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """What was left out, in one sentence; empty where nothing was."""
        if not self.seen.known:
            return (
                "which rows the champion was trained on is not known any more, as its run or the rows are gone: no "
                "held-out row was left out"
            )
        kinds = (("pairs", *self.pairs), ("demonstrations", *self.demonstrations))
        parts = [f"{gone} of {count} held-out {kind}" for kind, count, gone in kinds if gone]
        if not parts:
            return ""
        return f"left out, since the champion was trained on their first user turns: {' and '.join(parts)}"


def without_training_rows(data: Artifact, seen: TrainedOn, folder: Path) -> NewRows:
    """Leave out held-out rows, of pairs and of demonstrations, that a champion was trained on.

    Args:
        data: The challenger's artifact of data validation.
        seen: What the champion was trained on.
        folder: Where the remaining rows are written, if any are left out.

    Raises:
        PromotionError: No held-out pair remains.
    """
    if not seen.prompts:
        return NewRows(data, seen)
    pairs, demonstrations = load_pairs(data, "eval"), load_demonstrations(data, "eval")
    new_pairs, new_demonstrations = _new(pairs, seen.prompts), _new(demonstrations, seen.prompts)
    of_pairs = (len(pairs), len(pairs) - len(new_pairs))
    of_demonstrations = (len(demonstrations), len(demonstrations) - len(new_demonstrations))
    if not new_pairs:
        raise PromotionError(
            f"the champion was trained on the first user turns of all {len(pairs)} held-out pairs: give held-out pairs "
            "that are new to it (dpo.eval_dataset, or more data), and run the recipe"
        )
    if not of_pairs[1] and not of_demonstrations[1]:
        return NewRows(data, seen, of_pairs, of_demonstrations)

    def write(out: Path) -> None:
        write_rows(out / rows_file("preferences", "eval"), new_pairs)
        write_rows(out / rows_file("demonstrations", "eval"), new_demonstrations)

    return NewRows(build(folder / f"rows-{data.digest}", write), seen, of_pairs, of_demonstrations)


def _new(rows: Sequence[Row], seen: Set[str]) -> list[Row]:
    return [row for row in rows if _cluster(row) not in seen]


def _cluster(row: Pair | Demonstration) -> str:
    return cluster_key(first_user_turn(row.prompt if isinstance(row, Pair) else row.messages))
