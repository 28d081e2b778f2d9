"""Reviews by sheets that people filled in: what is logged to the run, and the new pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.review
import tasks.tracking.review.queues
from flows.commands.app import make_app
from preflow.data.rows import Pair, Source, content_id
from preflow.review.key import keys_in
from tasks.review import reviews_folder
from tasks.tracking.client import client
from tasks.tracking.past_runs import past_run
from tasks.tracking.review.collected import human_review
from tests.fixtures.reviewed_run import answered_by, finished_run, likes, turn
from tests.unit.tasks.review.commands import NAME, fill, newest, preflow

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds

DEMO = Path(__file__).parents[4] / "recipes" / "demo" / "preferences.jsonl"


def test_a_review_that_counts(home: Path, run: str) -> None:
    """Both prefer the new model on all 20 prompts that have two answers; so does the judge."""
    code, said = preflow("open", run, "--reviewers", "carla,dora", "--pairs", "60", "--csv", str(home / "sheets"))
    assert code == 0, said
    assert "20 pairs (of 60 asked for; the others have no two different answers), repeated: 2, gold: 1" in said
    key = newest()
    for name in ("carla", "dora"):
        fill(home / "sheets" / f"{name}.csv", answered_by(key, name, likes(lambda q: "new")))
    assert preflow("open", run, "--reviewers", "carla,dora", "--csv", str(home / "sheets"))[0] == 0
    assert preflow("status", run, "--csv", str(home / "sheets")) == (0, "carla: 23 of 23 done dora: 23 of 23 done")
    code, said = preflow("collect", run, "--csv", str(home / "sheets"))
    assert code == 0, said
    assert "human/win_rate 1.000 [0.839, 1.000] of dpo against sft on 20 prompts: 20 better, 0 worse" in said
    assert "judge and people: the same on 100% of 20 pairs" in said
    kept, sft = human_review(run), past_run(NAME).artifacts["sft"].digest
    assert kept is not None
    assert (kept.review, kept.counts, kept.models[1].digest, len(kept.scores)) == (key.number, True, sft, 20)
    metrics = client().get_run(run).data.metrics
    assert (metrics["human/win_rate"], metrics["human/self_consistency"], metrics["human/gold_accuracy"]) == (1, 1, 1)


def test_answers_to_training_prompts_become_pairs_that_pass_the_gate_and_no_win_rate(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models answer as the demo's pairs do; both reviewers prefer the new one but for two ties and one quarrel."""
    values = [json.loads(line) for line in DEMO.read_text("utf-8").splitlines()[:40]]
    rows = [
        Pair(
            turn(row["prompt"]),
            turn(row["chosen"], "assistant"),
            turn(row["rejected"], "assistant"),
            Source("demo", number),
        )
        for number, row in enumerate(values)
    ]
    run = finished_run(home / "trained", "learning", train=rows)
    said = {content_id(row.prompt): {"dpo": row.chosen[0].content, "sft": row.rejected[0].content} for row in rows}

    def sampled(owner: Any, model: Any, prompts: Any, reviewed: Any) -> dict[str, str]:
        return {prompt: said[prompt][model.name] for prompt in prompts}

    monkeypatch.setattr(tasks.review, "_sampled", sampled)
    sheets = ("--csv", str(home / "train sheets"))
    assert preflow("open", run, "--reviewers", "anna,ben", "--pairs", "30", "--prompts", "train", *sheets)[0] == 0
    (key,) = keys_in(reviews_folder("learning"))
    assert {pair.prompt_id for pair in key.pairs} <= said.keys()
    chosen = answered_by(key, "anna", likes(lambda q: "tie" if q.pair in (0, 1) else "new"))
    fill(home / "train sheets" / "anna.csv", chosen)
    chosen = answered_by(key, "ben", likes(lambda q: "tie" if q.pair in (0, 1) else "old" if q.pair == 2 else "new"))
    fill(home / "train sheets" / "ben.csv", chosen)
    file = home / "pairs.jsonl"
    code, out = preflow("collect", run, *sheets, "--out", str(file))
    assert (code, f"27 new pairs: {file}" in out) == (0, True), out
    assert "win_rate" not in out
    assert human_review(run) is None
    assert not [name for name in client().get_run(run).data.metrics if name.startswith("human/")]
    written = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert {(row["source"], row["run"], *row["reviewers"], row["agreement"]) for row in written} == {
        ("human-review", run, "anna", "ben", 1.0)
    }
    checked = CliRunner().invoke(make_app(), ["validate", str(file), "--out", str(home / "checked"), "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)["preferences"]["rows_in"]) == (0, 27)


def test_the_champion_is_asked_what_the_challenger_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = client()
    old, new = (finished_run(home / "crowned", "crowned") for _ in range(2))
    store.create_registered_model("crowned")
    version = store.create_model_version("crowned", "file:///1", old, tags={"stage": "dpo"}).version
    store.set_registered_model_alias("crowned", "champion", version)
    asked: list[Any] = []

    def sampled(owner: Any, model: Any, prompts: Any, reviewed: Any) -> dict[str, str]:
        asked.append((owner.run_id, model.name, set(prompts), reviewed.run_id))
        return dict.fromkeys(prompts, "a champion's answer")

    monkeypatch.setattr(tasks.review, "_sampled", sampled)
    code, said = preflow("open", new, "--reviewers", "anna", "--against", "champion", "--csv", str(home / "crowned"))
    assert (code, "dpo against champion, 21 pairs" in said) == (0, True), said
    (key,) = keys_in(reviews_folder("crowned"))
    assert asked == [(old, "dpo", {pair.prompt_id for pair in key.pairs}, new)]
    digests = [past_run("crowned", each).artifacts["dpo"].digest for each in (new, old)]
    assert [(each.run, each.digest) for each in key.models] == list(zip((new, old), digests, strict=True))
    assert {pair.old for pair in key.pairs} == {"a champion's answer"}
    code, said = preflow("open", old, "--reviewers", "anna", "--against", "champion")
    assert (code, "itself as its champion" in said) == (2, True)
