"""Preference pairs of judged answers, as a file that data validation reads, and a count of what made none."""

import json
from collections import Counter
from pathlib import Path
from statistics import mean

from preflow.artifacts import write_json
from preflow.observer import Observer
from preflow.on_policy.answers import ANSWERS, JUDGED, Row, load_answers
from preflow.on_policy.ranking import (
    REASONS,
    Chosen,
    Compared,
    Reason,
    choose_by_comparisons,
    choose_by_scores,
    usable_answers,
)
from preflow.specs import PairSpec


def run_pairing(spec: PairSpec, out: Path, observer: Observer) -> None:
    """Make one pair of each prompt whose answers the judge tells apart, whatever their order.

    Writes ``pairs-round-N.jsonl`` (prompt, chosen, rejected, their scores, the judge, the policy's digest, the round,
    and that both answers finished), ``report.json`` (prompts = pairs + dropped by reason, and what is known to go
    wrong: lengths, identical answers, answers that were cut) and ``metrics.json``.
    """
    rows, judged = load_answers(spec.answers.file(ANSWERS)), spec.judged.load(JUDGED)
    judge, policy = spec.judged.load("judge.json"), spec.answers.load("report.json")["policy"]
    margin = spec.recipe.augment.min_margin
    found = [_choose(row, verdicts, margin) for row, verdicts in zip(rows, judged, strict=True)]
    dropped = Counter(each for each in found if isinstance(each, str))
    pairs = [(row, each) for row, each in zip(rows, found, strict=True) if isinstance(each, Chosen)]
    about = {"judge": judge["name"], "policy": policy, "round": spec.round, "finished": True}
    with (out / f"pairs-round-{spec.round}.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as handle:
        handle.writelines(json.dumps(_pair(row, each) | about, ensure_ascii=False) + "\n" for row, each in pairs)
    report = {
        "round": spec.round,
        "policy": policy,
        "judge": judge,
        "prompts": len(rows),
        "pairs": len(pairs),
        "dropped": {reason: dropped[reason] for reason in REASONS},
        **_answers(rows),
        **_lengths(pairs),
    }
    write_json(out / "report.json", report)
    numbers = {name: value for name, value in report.items() if isinstance(value, int | float) and name != "round"}
    numbers |= {f"dropped_{reason}": dropped[reason] for reason in REASONS}
    write_json(out / "metrics.json", {f"augment/{name}": float(value) for name, value in numbers.items()})
    observer.note(f"pair: {len(pairs)} pairs of {len(rows)} prompts; without one: {described(report['dropped'])}")


def described(dropped: dict[str, int]) -> str:
    """Counts by reason in words, those that are not zero."""
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count) or "none"


def _choose(row: Row, verdicts: Row, margin: float) -> Chosen | Reason:
    usable = usable_answers(row["answers"])
    if not isinstance(usable, list):
        return usable
    if "scores" in verdicts:
        return choose_by_scores({int(number): score for number, score in verdicts["scores"].items()}, margin)
    compared = [Compared(*each["answers"], *each["verdicts"]) for each in verdicts["comparisons"]]
    return choose_by_comparisons(compared, margin)


def _pair(row: Row, each: Chosen) -> Row:
    texts = {
        name: [{"role": "assistant", "content": row["answers"][number]["text"]}]
        for name, number in (("chosen", each.chosen), ("rejected", each.rejected))
    }
    return {
        "prompt": row["prompt"],
        **texts,
        "chosen_score": each.chosen_score,
        "rejected_score": each.rejected_score,
        "source": f"answers to {row['source']}",
    }


def _answers(rows: list[Row]) -> dict[str, float]:
    """Of all sampled answers: how many were cut, how many repeat another one to the same prompt, their length."""
    every = [answer for row in rows for answer in row["answers"]]
    distinct = sum(len({answer["text"] for answer in row["answers"]}) for row in rows)
    return {
        "answers": len(every),
        "answer_tokens": mean(answer["tokens"] for answer in every),
        "cut_share": sum(not answer["finished"] for answer in every) / len(every),
        "identical_share": 1 - distinct / len(every),
    }


def _lengths(pairs: list[tuple[Row, Chosen]]) -> dict[str, float]:
    """Of the pairs: the share that was kept, and how much longer what was chosen is, in tokens."""
    if not pairs:
        return {}
    both = [tuple(row["answers"][n]["tokens"] for n in (each.chosen, each.rejected)) for row, each in pairs]
    return {
        "chosen_tokens": mean(chosen for chosen, _ in both),
        "rejected_tokens": mean(rejected for _, rejected in both),
        "length_difference": mean(chosen - rejected for chosen, rejected in both),
        "chosen_longer_share": mean(float(chosen > rejected) for chosen, rejected in both),
        "score_margin": mean(each.chosen_score - each.rejected_score for _, each in pairs),
    }
