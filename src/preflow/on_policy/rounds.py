"""Rounds side by side: what each came to, when to stop, and which model to keep."""

from collections.abc import Sequence

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.config.base import Frozen

#: Longer answers than the first model's by this factor are said to be a warning.
_GROWN = 1.5
_IDENTICAL = 0.2
_LONGER, _FEW = 0.7, 20
_POSITION = 0.15


class Round(Frozen):
    """One round: its pairs, and its model on the recipe's held-out rows."""

    number: int
    prompts: int
    pairs: int
    dropped: dict[str, int]
    """Prompts without a pair, by reason."""
    identical_share: float
    """Sampled answers that repeat another one to the same prompt."""
    cut_share: float
    length_difference: float
    """Tokens of chosen minus rejected, mean over the pairs."""
    chosen_longer_share: float
    judge_first_share: float | None
    """Verdicts for one side that were for the answer shown first; None for a judge that scores answers alone."""
    accuracy: float
    """Preference accuracy on held-out pairs."""
    accuracy_before: float
    """That of the model that the first round started from."""
    kl: float | None
    """From that model, nats per response; None where no answers were sampled."""
    length_ratio: float | None
    """Tokens of this model's answers by that model's; None where no answers were sampled."""

    def metrics(self) -> dict[str, float]:
        """The numbers for MLflow; the step is the round."""
        names = set(type(self).model_fields) - {"number", "dropped"}
        values = {name: getattr(self, name) for name in sorted(names)}
        return {f"iterate/{name}": float(value) for name, value in values.items() if value is not None}

    def warnings(self) -> list[str]:
        """What is known to go wrong in rounds, where the numbers show it."""
        found = []
        if self.length_ratio is not None and self.length_ratio > _GROWN:
            found.append(f"answers are {self.length_ratio:.1f} times as long as the first model's")
        if self.pairs >= _FEW and self.chosen_longer_share > _LONGER:
            found.append(f"chosen is longer in {self.chosen_longer_share:.0%} of the pairs")
        if self.identical_share > _IDENTICAL:
            found.append(f"{self.identical_share:.0%} of the answers repeat another one")
        if self.judge_first_share is not None and abs(self.judge_first_share - 0.5) > _POSITION:
            found.append(f"the judge names the answer shown first in {self.judge_first_share:.0%} of its verdicts")
        return found


def round_of(number: int, paired: Artifact, evaluation: Artifact) -> Round:
    """A finished round from its artifacts.

    Args:
        number: From 1.
        paired: Of the stage ``pair``.
        evaluation: The round's model beside the model that the first round started from, as its reference.
    """
    pairs, report = paired.load("report.json"), evaluation.load("evaluation.json")
    first, last = report["models"][report["reference"]], report["models"]["dpo"]
    kl, before, after = last.get(f"kl_{report['reference']}"), first.get("response_tokens"), last.get("response_tokens")
    names = ("prompts", "pairs", "dropped", "identical_share", "cut_share", "length_difference", "chosen_longer_share")
    return Round(
        number=number,
        **{name: pairs[name] for name in names},
        judge_first_share=pairs["judge"]["test"]["first_share"],
        accuracy=last["preference_accuracy"]["value"],
        accuracy_before=first["preference_accuracy"]["value"],
        kl=None if kl is None else kl["value"],
        length_ratio=after / before if before and after is not None else None,
    )


def stop_reason(rounds: Sequence[Round], recipe: Recipe) -> str:
    """Why no further round should follow; empty where one may.

    Args:
        rounds: All so far, at least one.
        recipe: Its limits: ``evaluation.kl_limit`` and ``augment.max_accuracy_drop``.
    """
    last, limit, most = rounds[-1], recipe.evaluation.kl_limit, recipe.augment.max_accuracy_drop
    if last.kl is not None and last.kl > limit:
        return f"KL from the first model is {last.kl:.2f} nats after round {last.number}, above the limit of {limit:g}"
    best = max([last.accuracy_before, *(each.accuracy for each in rounds[:-1])])
    if best - last.accuracy > most:
        return (
            f"held-out preference accuracy is {last.accuracy:.3f} after round {last.number} and was {best:.3f}: it "
            f"fell by more than {most:g}"
        )
    return ""


def kept_round(rounds: Sequence[Round], recipe: Recipe) -> int | None:
    """The number of the round whose model is kept: the last that was no reason to stop; None without one."""
    good = [each.number for n, each in enumerate(rounds, start=1) if not stop_reason(rounds[:n], recipe)]
    return good[-1] if good else None
