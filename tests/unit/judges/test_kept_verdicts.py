"""A judge's numbers come out again from the verdicts that were kept, and not from others."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.data.rows import Message, Pair, Source, content_id
from preflow.data.validated import rows_file, write_rows
from preflow.errors import JudgeError
from preflow.judges.kept_verdicts import KeptVerdicts
from preflow.judges.report import JudgeReport, judge_report
from preflow.judges.verdict import Comparison, Outcome, Verdict
from preflow.observer import Silent
from preflow.specs import JudgeSpec
from preflow.verification.run_checks import as_tested

JUDGE = {"kind": "function", "model": "judges:kind", "calibrate": 12}
COUNT = 16


class Kind:
    """Prefers the kinder answer: the one with more words of thanks."""

    identity: ClassVar[dict[str, Any]] = {"kind": "function", "model": "judges:kind"}

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        for number, one in enumerate(asked):
            first, second = one.first.count("thanks"), one.second.count("thanks")
            outcome = Outcome.TIE if first == second else Outcome.FIRST if first > second else Outcome.SECOND
            yield number, Verdict(outcome, f"{first} to {second}")


def turn(text: str, role: Any = "user") -> tuple[Message, ...]:
    return (Message(role, text),)


PAIR = [
    Pair(turn(f"Q{n}?"), turn(f"thanks {n}", "assistant"), turn(f"no {n}", "assistant"), Source("p.jsonl", n + 1))
    for n in range(COUNT)
]


def answers(word: str) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": content_id(pair.prompt),
            "cluster": str(n),
            "prompt": pair.prompt[0].content,
            "text": f"{word if n % 4 else 'no'} {n}",
            "tokens": 4 + n % 3,
            "finished": True,
            "seed": 0,
        }
        for n, pair in enumerate(PAIR)
    ]


@pytest.fixture
def spec(tmp_path: Path) -> JudgeSpec:
    def write_data(out: Path) -> None:
        for kind in ("demonstrations", "preferences"):
            for split in ("train", "eval"):
                write_rows(out / rows_file(kind, split), PAIR if (kind, split) == ("preferences", "eval") else [])

    def write_evaluation(out: Path) -> None:
        write_json(out / "pairs.json", [{"id": p.id, "chosen_tokens": 2, "rejected_tokens": 2} for p in PAIR])
        (out / "answers").mkdir()
        for name, word in (("sft", "so"), ("dpo", "thanks")):
            write_json(out / "answers" / f"{name}.json", answers(word))

    recipe = Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {}, "evaluation": {"judge": JUDGE}})
    made: dict[str, Artifact] = {
        name: build(tmp_path / name, write) for name, write in (("data", write_data), ("evaluation", write_evaluation))
    }
    return JudgeSpec(recipe=recipe, **made)


def plain(report: JudgeReport) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    values, verdicts = json.loads(json.dumps([report.values, report.verdicts]))
    return values, verdicts


def test_the_same_numbers_come_out_bit_for_bit(spec: JudgeSpec, tmp_path: Path) -> None:
    values, verdicts = plain(judge_report(spec, Kind(), tmp_path / "first", Silent()))
    assert values["win_rate"]["value"] == (12 + 4 / 2) / 16, "four prompts are ties"
    kept = KeptVerdicts(values["judge"], verdicts)
    assert plain(judge_report(spec, kept, tmp_path / "again", Silent())) == (values, verdicts)


def test_a_changed_verdict_gives_another_number(spec: JudgeSpec, tmp_path: Path) -> None:
    values, verdicts = plain(judge_report(spec, Kind(), tmp_path / "first", Silent()))
    verdicts[-1]["verdicts"] = ["second", "first"]
    kept = KeptVerdicts(values["judge"], verdicts)
    changed, _ = plain(judge_report(spec, kept, tmp_path / "again", Silent()))
    assert changed["win_rate"]["value"] == values["win_rate"]["value"] - 1 / 16
    assert changed["test"] == values["test"]


def test_so_do_they_with_orders_and_of_runs_in_which_none_was_planted(spec: JudgeSpec, tmp_path: Path) -> None:
    """What an earlier Preflow kept of a judge behind an address has no row of orders, and is checked without them."""
    asked = {**JUDGE, "kind": "endpoint", "base_url": "http://127.0.0.1:1/v1"}
    for orders, rows in ((10, 10), (0, 0)):
        recipe = Recipe.model_validate(
            {"model_name": "m", "sft": {}, "dpo": {}, "evaluation": {"judge": {**asked, "orders": orders}}}
        )
        values, verdicts = plain(
            judge_report(spec.model_copy(update={"recipe": recipe}), Kind(), tmp_path / f"{orders}", Silent())
        )
        assert (sum(row["of"] == "orders" for row in verdicts), "orders" in values["test"]) == (rows, rows > 0)
        today = Recipe.model_validate({"model_name": "m", "sft": {}, "dpo": {}, "evaluation": {"judge": asked}})
        again = spec.model_copy(update={"recipe": as_tested(today, verdicts)})
        kept = KeptVerdicts(values["judge"], verdicts)
        assert plain(judge_report(again, kept, tmp_path / f"again {orders}", Silent())) == (values, verdicts)


def test_an_answer_on_which_no_verdict_was_kept_is_named(spec: JudgeSpec, tmp_path: Path) -> None:
    values, verdicts = plain(judge_report(spec, Kind(), tmp_path / "first", Silent()))
    verdicts[-1]["first"] = "another answer"
    with pytest.raises(JudgeError, match=r"no verdict was kept on an answer to 'Q15\?'"):
        judge_report(spec, KeptVerdicts(values["judge"], verdicts), tmp_path / "again", Silent())
