"""The judge's stage on kept answers that are written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.data.rows import Message, Pair, Source, content_id
from preflow.data.validated import rows_file, write_rows
from preflow.observer import Silent
from preflow.specs import JudgeSpec
from preflow.stages.judging import run_judging
from tests.fixtures.judge_server import JudgeServer, always_first, obeys_everywhere, oracle

pytestmark = pytest.mark.slow  # each test asks a server for tens of verdicts

PAIRS, PROMPTS = 40, 20
WINS, LOSSES = 15, 2
#: Human pairs with an order to the judge in the rejected answer.
ORDERS = 10


def turn(text: str, role: Any = "user") -> tuple[Message, ...]:
    return (Message(role, text),)


def pair(number: int) -> Pair:
    chosen, rejected = turn(f"GOOD answer {number}", "assistant"), turn(f"BAD answer {number}", "assistant")
    return Pair(turn(f"Where is order {number}?"), chosen, rejected, Source("pairs.jsonl", number + 1))


def answer(number: int, text: str, tokens: int, seed: int | None = 0) -> dict[str, Any]:
    prompt = turn(f"Where is order {number}?")
    return {
        "prompt_id": content_id(prompt),
        "cluster": str(number),
        "prompt": prompt[0].content,
        "text": text,
        "tokens": tokens,
        "finished": number > 0,
        "seed": seed,
        "model": "d" * 64,
    }


@pytest.fixture
def data(tmp_path: Path) -> Artifact:
    pairs = [pair(number) for number in range(PAIRS)]

    def write(out: Path) -> None:
        for kind in ("demonstrations", "preferences"):
            for split in ("train", "eval"):
                held_out = kind == "preferences" and split == "eval"
                write_rows(out / rows_file(kind, split), pairs if held_out else [])

    return build(tmp_path / "data", write)


@pytest.fixture
def evaluation(tmp_path: Path) -> Artifact:
    """DPO wins on 15 prompts, loses on 2, and on 3 both answers are good, which the oracle decides by their order."""

    def write(out: Path) -> None:
        rows = [pair(number) for number in range(PAIRS)]
        write_json(
            out / "pairs.json",
            [
                {
                    "id": row.id,
                    "prompt_id": content_id(row.prompt),
                    "chosen_tokens": 3 + n % 2,
                    "rejected_tokens": 4 - n % 2,
                }
                for n, row in enumerate(rows)
            ],
        )
        (out / "answers").mkdir()
        new = ["GOOD"] * WINS + ["BAD"] * LOSSES + ["GOOD"] * 3
        old = ["BAD"] * WINS + ["GOOD"] * LOSSES + ["GOOD"] * 3
        for name, words in (("base", old), ("sft", old), ("dpo", new)):
            longer = 2 if name == "dpo" else 0
            table = [
                answer(n, f"{word} of {name} {n}", 10 + (longer if n % 2 else -longer)) for n, word in enumerate(words)
            ]
            write_json(out / "answers" / f"{name}.json", [*table, answer(0, "greedy", 1, seed=None)])

    return build(tmp_path / "evaluation", write)


def judged(server: JudgeServer, data: Artifact, evaluation: Artifact, out: Path, **changes: Any) -> dict[str, Any]:
    judge = {"kind": "endpoint", "model": "judge-1", "base_url": server.address, **changes}
    recipe = Recipe.model_validate(
        {"model_name": "m", "sft": {"dataset": "a"}, "dpo": {"dataset": "b"}, "evaluation": {"judge": judge}}
    )
    out.mkdir(exist_ok=True)
    run_judging(JudgeSpec(recipe=recipe, data=data, evaluation=evaluation), out, Silent())
    return dict(json.loads((out / "judge.json").read_text()))


def test_fifteen_wins_two_losses_and_three_that_the_order_decides(
    data: Artifact, evaluation: Artifact, tmp_path: Path
) -> None:
    with JudgeServer(oracle).running() as server:
        report = judged(server, data, evaluation, tmp_path / "out")
        assert server.calls == 2 * (PAIRS + ORDERS + PROMPTS)
        judged(server, data, evaluation, tmp_path / "again")
        assert server.calls == 2 * (PAIRS + ORDERS + PROMPTS), "nothing is asked twice"
    assert report["models"] == ["dpo", "sft"]
    assert report["test"]["accuracy"]["value"] == 1
    assert report["prompts"] == PROMPTS
    assert report["win_rate"]["value"] == pytest.approx(0.825)
    assert report["consistent"] == {"wins": 15, "losses": 2, "ties": 0}
    assert (report["inconsistent"], report["unreadable"]) == (3, 0)
    assert report["sign_test_p"] == pytest.approx(0.00235, abs=1e-5)
    assert report["length_ratio"] == 1
    assert report["unfinished"] == [1, 1]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["eval/win_rate"] == pytest.approx(0.825)
    assert metrics["eval/win_rate_consistent"] == pytest.approx(15 / 17)
    assert (metrics["judge/fit"], metrics["judge/obeyed"]) == (1, 0)
    verdicts = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert [row["of"] for row in verdicts] == ["human pairs"] * PAIRS + ["orders"] * ORDERS + ["answers"] * PROMPTS
    assert verdicts[PAIRS + ORDERS]["verdicts"] == ["first", "second"]
    assert (tmp_path / "out" / "figures" / "win_rate_by_length.png").stat().st_size > 5000


def test_an_unfit_judge_gives_no_win_rate_and_is_asked_nothing_more(
    data: Artifact, evaluation: Artifact, tmp_path: Path
) -> None:
    with JudgeServer(always_first).running() as server:
        report = judged(server, data, evaluation, tmp_path / "out")
        assert server.calls == 2 * PAIRS
    assert "win_rate" not in report
    assert not report["test"]["fit"]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert not [name for name in metrics if name.startswith("eval/")]
    assert (metrics["judge/fit"], metrics["judge/first_share"]) == (0, 1)


def test_a_judge_that_obeys_an_answer_is_unfit_although_it_agrees_with_people(
    data: Artifact, evaluation: Artifact, tmp_path: Path
) -> None:
    with JudgeServer(oracle).running() as server:
        server.obeys = obeys_everywhere
        report = judged(server, data, evaluation, tmp_path / "out")
        assert server.calls == 2 * (PAIRS + ORDERS)
        believed = judged(server, data, evaluation, tmp_path / "believed", orders=0)
    assert report["test"]["accuracy"]["value"] == 1
    assert report["test"]["orders"] == {"pairs": ORDERS, "obeyed": ORDERS, "resisted": 0}
    assert "it moved towards it on 10 of 10 held-out pairs and away on 0" in report["test"]["reason"]
    assert ("win_rate" in report, "win_rate" in believed) == (False, True)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["judge/fit"], metrics["judge/obeyed"], "eval/win_rate" in metrics) == (0, 1, False)


def test_without_sampled_answers_the_report_names_the_setting(
    data: Artifact, evaluation: Artifact, tmp_path: Path
) -> None:
    for file in evaluation.file("answers").iterdir():
        file.unlink()
    with JudgeServer(oracle).running() as server:
        report = judged(server, data, evaluation, tmp_path / "out")
        assert server.calls == 2 * (PAIRS + ORDERS)
    assert report["test"]["fit"]
    assert report["models"] == ["dpo", "sft"]
    assert report["reason"].startswith("no sampled answer was there to judge: raise evaluation.kl_prompts")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert not [name for name in metrics if name.startswith("eval/")]


def test_ties_inconsistent_and_unreadable_replies_are_counted_apart(
    data: Artifact, evaluation: Artifact, tmp_path: Path
) -> None:
    """On 3 prompts both answers are good: one is a tie, one goes to the order, one reply cannot be read."""

    def reply(first: str, second: str) -> str:
        if "GOOD" in first and "GOOD" in second:
            number = int(first.rsplit(maxsplit=1)[-1])
            return {17: "TIE", 18: "A", 19: "perhaps A"}[number]
        return oracle(first, second)

    with JudgeServer(reply).running() as server:
        report = judged(server, data, evaluation, tmp_path / "out")
    assert report["consistent"] == {"wins": 15, "losses": 2, "ties": 1}
    assert (report["inconsistent"], report["unreadable"], report["prompts"]) == (1, 1, 19)
    assert report["win_rate"]["value"] == pytest.approx((15 + 0.5 + 0.5) / 19)


def test_the_recipe_says_on_how_many_pairs_it_is_tested(data: Artifact, evaluation: Artifact, tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        report = judged(server, data, evaluation, tmp_path / "out", calibrate=10)
    assert report["test"]["pairs"] == 10
