"""The key of a review: what was asked of whom in which order. It stays in the artifact store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from preflow.artifacts import Artifact, build, find, write_json
from preflow.config.base import Frozen
from preflow.config.evaluation.review import ReviewSettings
from preflow.data.rows import Message, from_json, to_json
from preflow.errors import ReviewError
from preflow.review.record import Compared, Prompts

#: The file of a review's artifact.
KEY = "key.json"
#: What a reviewer may answer, in the words that are shown.
A_IS_BETTER, B_IS_BETTER, TIE, BOTH_ARE_BAD = OPTIONS = ("A is better", "B is better", "Tie", "Both are bad")
#: An answer with the order undone.
Choice = Literal["new", "old", "tie", "neither"]
#: Why a question is asked: a pair to compare, the same once more in the other order, or a pair with a known answer.
Kind = Literal["pair", "repeat", "gold"]


class ReviewPair(Frozen):
    """Two answers to one prompt: the new model's and the other's, or of a gold pair chosen and rejected."""

    prompt_id: str
    """Content id of the prompt (``rows.content_id``)."""
    cluster: str
    """``splits.cluster_key`` of its first user turn."""
    prompt: tuple[dict[str, str], ...]
    """Its turns as chat templates take them."""
    new: str
    old: str

    @property
    def turns(self) -> tuple[Message, ...]:
        """The turns of the prompt."""
        return from_json(self.prompt)

    @staticmethod
    def turns_json(turns: Sequence[Message]) -> tuple[dict[str, str], ...]:
        """Turns as the field ``prompt`` has them."""
        return tuple(to_json(turns))


class Question(Frozen):
    """What one reviewer is asked once."""

    id: str
    """A random name, which says nothing of what is asked."""
    reviewer: str
    kind: Kind
    pair: int
    """Its number among the pairs, or among the gold pairs."""
    new_first: bool
    """Whether the new model's answer (of a gold pair the chosen one) is shown as A."""

    def choice(self, answer: str) -> Choice:
        """What one of the options says, with the order undone."""
        if answer in (A_IS_BETTER, B_IS_BETTER):
            return "new" if (answer == A_IS_BETTER) == self.new_first else "old"
        return "tie" if answer == TIE else "neither"


class Key(Frozen):
    """A review as it was opened."""

    number: int
    """Its number among the reviews of its recipe, from 1."""
    recipe: str
    run: str
    """MLflow's id of the pipeline run whose model is the new one."""
    prompts: Prompts
    against: str
    models: tuple[Compared, Compared]
    reviewers: tuple[str, ...]
    asked_for: int
    """How many pairs were asked for; there may be fewer."""
    settings: ReviewSettings
    confidence: float
    bootstrap_samples: int
    seed: int
    pairs: tuple[ReviewPair, ...]
    gold: tuple[ReviewPair, ...]
    questions: tuple[Question, ...]
    """Those of all reviewers, each reviewer's in an order of its own."""

    def of(self, reviewer: str) -> list[Question]:
        """One reviewer's questions."""
        return [question for question in self.questions if question.reviewer == reviewer]

    def pair_of(self, question: Question) -> ReviewPair:
        """What a question shows."""
        return (self.gold if question.kind == "gold" else self.pairs)[question.pair]

    def shown(self, question: Question) -> tuple[str, str]:
        """The answers that a question shows as A and B."""
        pair = self.pair_of(question)
        return (pair.new, pair.old) if question.new_first else (pair.old, pair.new)

    def is_for(self, asked: "Asked") -> bool:
        """Whether this is the review that is asked for."""
        same = (self.run, self.prompts, self.models, self.asked_for)
        return same == (asked.run, asked.prompts, asked.models, asked.pairs) and self.reviewers == asked.reviewers


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes two openings one review."""

    run: str
    prompts: Prompts
    models: tuple[Compared, Compared]
    reviewers: tuple[str, ...]
    pairs: int


def keys_in(folder: Path) -> list[Key]:
    """The keys of a recipe's reviews, by number; a damaged one is put aside.

    Args:
        folder: Those of the recipe.
    """
    numbers = [int(each.name) for each in folder.glob("*") if each.name.isdigit()]
    found = [find(folder / str(number)) for number in sorted(numbers)]
    return [Key.model_validate(artifact.load(KEY)) for artifact in found if artifact is not None]


def write_key(folder: Path, key: Key) -> Artifact:
    """Keep a new key."""

    def write(out: Path) -> None:
        write_json(out / KEY, key.model_dump(mode="json"))

    return build(folder / str(key.number), write)


def newest(keys: Sequence[Key], run: str | None, number: int | None, where: str) -> Key:
    """The review that a command is about.

    Args:
        keys: All of the recipe.
        run: MLflow's id of a pipeline run; any where not given.
        number: The number of a review; the newest where not given.
        where: What was asked for, in the words of the message.

    Raises:
        ReviewError: There is none.
    """
    found = [key for key in keys if run in (None, key.run) and number in (None, key.number)]
    if not found:
        which = "no review" if number is None else f"no review {number}"
        raise ReviewError(
            f"{where} has {which} in this store: a review's key is kept where it was opened (PREFLOW_HOME). Open one "
            "by preflow review open"
        )
    return found[-1]


def require_reviewers(names: Sequence[str]) -> tuple[str, ...]:
    """Names of reviewers that MLflow's queues and file names take.

    Raises:
        ReviewError: There is none, one cannot be a name, or two are the same.
    """
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise ReviewError("no reviewer is named: give --reviewers NAME,NAME")
    for name in found:
        if name.casefold() == "default" or len(name) > 60 or not name.replace("-", "").replace("_", "").isalnum():
            raise ReviewError(f"{name!r} cannot be a reviewer's name: expected letters, digits, - and _, not 'default'")
    if len({name.casefold() for name in found}) < len(found):
        raise ReviewError(f"two reviewers have one name ({', '.join(found)}), and case does not tell them apart")
    return found
