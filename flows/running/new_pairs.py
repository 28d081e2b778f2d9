"""What became of sampled answers, for people: pairs, what made none, and what is known to go wrong."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from preflow.artifacts import Artifact
from preflow.config.base import Frozen
from preflow.console import TextConsole
from preflow.data.files.sources import resolve_sources
from preflow.data.validated import QUARANTINE, load_pairs
from preflow.specs import ValidateSpec

_NAMED = 5
#: Pairs below which a share of them means nothing.
_FEW = 20
#: Beyond these a round's figures are said to be a warning.
_LONGER, _IDENTICAL, _CUT, _POSITION = 0.7, 0.2, 0.2, 0.15


class NewPairs(Frozen):
    """One round of new pairs."""

    recipe: str
    """The recipe's name."""
    mlflow_run_id: str
    dataset: tuple[str, ...]
    """What the recipe trains DPO on, where it names files alone."""
    sampled: Artifact
    judged: Artifact
    paired: Artifact
    union: Artifact | None
    """The validated data with the new pairs among them; none where there is no new pair."""

    @property
    def file(self) -> str:
        """The file of the new pairs."""
        return str(pairs_file(self.paired))


def pairs_file(paired: Artifact) -> str:
    """The file of the pairs of an artifact of the stage ``pair``."""
    return str(paired.file(f"pairs-round-{paired.load('report.json')['round']}.jsonl"))


def with_new_pairs(sources: ValidateSpec, made: Sequence[Artifact]) -> ValidateSpec:
    """The recipe's data with new pairs among the training pairs."""
    new = resolve_sources([pairs_file(each) for each in made])
    return sources.model_copy(update={"preferences": (*sources.preferences, *new)})


def through_gate(union: Artifact, paired: Artifact) -> dict[str, Any]:
    """How many of the new pairs train, and by finding how many were quarantined."""
    name = pairs_file(paired).rpartition("/")[2]
    quarantined: dict[str, int] = {}
    with union.file(QUARANTINE).open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["file"] == name:
                quarantined[row["finding"]] = quarantined.get(row["finding"], 0) + 1
    trained = sum(pair.source.file == name for pair in load_pairs(union, "train"))
    return {"trained": trained, "quarantined": quarantined}


def lines_of(made: NewPairs) -> list[tuple[str, str]]:
    """What a round came to, as names and sentences."""
    report, sampled = made.paired.load("report.json"), made.sampled.load("report.json")["prompts"]
    test = report["judge"]["test"]
    found = [
        ("judge", f"{report['judge']['name']}: {_tested(test)}"),
        ("prompts", f"{report['prompts']} answered{_left_out(sampled)}"),
        (
            "answers",
            f"{report['answers']}, {report['answer_tokens']:.1f} tokens on average; {report['cut_share']:.0%} cut, "
            f"{report['identical_share']:.0%} repeat another one",
        ),
        (
            "pairs",
            f"{report['pairs']} of {report['prompts']} prompts ({report['pairs'] / report['prompts']:.0%}); without "
            f"one: {_counts(report['dropped'])}",
        ),
    ]
    if report["pairs"]:
        found.append(
            (
                "lengths",
                f"chosen is {report['length_difference']:+.1f} tokens longer than rejected, longer in "
                f"{report['chosen_longer_share']:.0%} of the pairs",
            )
        )
    if made.union is not None:
        gate = through_gate(made.union, made.paired)
        found.append(("validation", f"{gate['trained']} train; quarantined: {_counts(gate['quarantined'])}"))
    return found


def warnings_of(report: dict[str, Any]) -> list[str]:
    """What is known to go wrong with pairs of one's own answers, where the figures of a round show it."""
    test = report["judge"]["test"]
    found = []
    if report["pairs"] >= _FEW and report["chosen_longer_share"] > _LONGER:
        found.append(
            f"chosen is longer in {report['chosen_longer_share']:.0%} of the pairs: the model will learn length"
        )
    if report["identical_share"] > _IDENTICAL:
        found.append(f"{report['identical_share']:.0%} of the answers repeat another one: raise augment.temperature")
    if report["cut_share"] > _CUT:
        found.append(f"{report['cut_share']:.0%} of the answers were cut: raise augment.max_new_tokens")
    first = test["first_share"]
    if first is not None and abs(first - 0.5) > _POSITION:
        found.append(f"the judge names the answer shown first in {first:.0%} of its verdicts for one side")
    return found


def as_markdown(made: NewPairs) -> str:
    """The round for Prefect and MLflow."""
    rows = [f"- **{name}**: {text}" for name, text in lines_of(made)]
    rows += [f"- **Warning:** {text}" for text in warnings_of(made.paired.load("report.json"))]
    return "\n".join([f"# {made.recipe}: new pairs", "", *rows, "", f"File: `{made.file}`", ""])


def print_new_pairs(made: NewPairs, console: Console | None = None) -> None:
    """Print the round, and how the pairs are trained on."""
    console = console or TextConsole()
    console.print()
    for name, text in lines_of(made):
        console.print(f"{name:<11} {text}", soft_wrap=True, markup=False)
    for text in warnings_of(made.paired.load("report.json")):
        console.print(f"warning: {text}", style="yellow", soft_wrap=True, markup=False)
    console.print(f"{'file':<11} {made.file}", soft_wrap=True, markup=False)
    if made.union is None or not through_gate(made.union, made.paired)["trained"]:
        console.print("There is no new pair to train on.", style="bold", markup=False)
        return
    if made.dataset:
        change = shlex.quote(f"dpo.dataset=[{', '.join([*made.dataset, made.file])}]")
        console.print(f"{'train':<11} preflow run RECIPE --set {change}", soft_wrap=True, style="bold", markup=False)
    else:
        console.print("Name the file beside the others in dpo.dataset to train on it.", style="bold", markup=False)


def _tested(test: dict[str, Any]) -> str:
    accuracy = test["accuracy"]
    return (
        f"agrees with people on {accuracy['value']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}] of "
        f"{test['pairs']} held-out pairs, the same in both orders on {test['consistency']:.0%}"
    )


def _left_out(prompts: dict[str, Any]) -> str:
    parts = []
    if held_out := prompts["held_out"]:
        more = f" and {len(held_out) - _NAMED} more" if len(held_out) > _NAMED else ""
        parts.append(f"{len(held_out)} are held out and were not ({', '.join(held_out[:_NAMED])}{more})")
    if prompts["too_long"]:
        parts.append(f"{len(prompts['too_long'])} leave no room for an answer")
    if unreadable := sum(map(len, prompts["unreadable"].values())):
        parts.append(f"{unreadable} rows hold no prompt ({', '.join(prompts['unreadable'])})")
    return "".join(f"; {part}" for part in parts)


def _counts(found: dict[str, int]) -> str:
    most_first = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in most_first if count) or "none"
