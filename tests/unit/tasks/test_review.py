"""A review of a finished run in a real database of MLflow's: opened, answered through its API, collected."""

import getpass
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.review
import tasks.tracking.review.queues
import tests.fixtures.reviewed_run
from flows.commands.app import make_app
from preflow.data.rows import Pair, Source, content_id
from preflow.review.key import KEY, OPTIONS, Key, keys_in
from tasks.review import answers_of, open_review, reviews_folder, show
from tasks.tracking.client import client
from tasks.tracking.past_runs import past_run
from tasks.tracking.review.collected import human_review
from tasks.tracking.review.queues import experiment_name
from tests.fixtures.reviewed_run import PROMPTS, SECRETS, answer, answered_by, finished_run, give, likes, trace_of, turn
from tests.unit.review.test_sheets import cells, save

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds

NAME = "mine-42"
DEMO = Path(__file__).parents[3] / "recipes" / "demo" / "preferences.jsonl"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFLOW_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def run(home: Path) -> str:
    """A run whose judge prefers the new model on all prompts."""
    texts = [(answer("dpo", number), answer("sft", number)) for number in range(PROMPTS - 1)]
    verdicts = [{"of": "answers", "first": a, "second": b, "verdicts": ["first", "second"]} for a, b in texts]
    return finished_run(home / "store", NAME, verdicts)


@pytest.fixture(autouse=True)
def same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of this file share one home folder."""
    monkeypatch.setenv("PREFLOW_HOME", str(home))
    monkeypatch.chdir(home)


def preflow(*arguments: str) -> tuple[int, str]:
    """Exit code and output of ``preflow review``."""
    done = CliRunner().invoke(make_app(), ["review", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def newest() -> Key:
    return keys_in(reviews_folder(NAME))[-1]


def traces() -> list[Any]:
    store = client()
    experiment = store.get_experiment_by_name(experiment_name(NAME)).experiment_id
    return list(store.search_traces(locations=[experiment], max_results=400))


@pytest.fixture(scope="module")
def opened(home: Path, run: str) -> Key:
    """A review of four pairs by two reviewers, opened twice, the first time until MLflow was killed."""
    made = tasks.tracking.review.queues._make_trace
    left = 3

    def killed(*arguments: Any) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        made(*arguments)

    found = past_run(NAME)

    def opened_once() -> Key:
        return open_review(found, found.recipe.evaluation.review, ["anna", "ben"], 4, "test", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.tracking.review.queues, "_make_trace", killed)
        with pytest.raises(KeyboardInterrupt):
            show(opened_once(), lambda done, of: None)
    key = opened_once()
    show(key, lambda done, of: None)
    return key


def test_opening_again_after_a_kill_adds_nothing_twice(opened: Key) -> None:
    """4 pairs, 1 repeat and 1 gold pair for each of two reviewers."""
    made = []
    addresses = show(opened, lambda done, of: made.append(done))
    assert made == []
    assert len(traces()) == len(opened.questions) == 12
    assert len(keys_in(reviews_folder(NAME))) == 1
    from mlflow.genai import review_queues

    experiment = client().get_experiment_by_name(experiment_name(NAME)).experiment_id
    queues = {queue.name: queue.queue_id for queue in review_queues.list_review_queues(experiment_id=experiment)}
    assert set(queues) == {"anna 1", "ben 1"}
    assert addresses["anna"].endswith(queues["anna 1"])
    items = {item.item_id for item in review_queues.list_review_queue_items(queues["anna 1"])}
    assert items == {trace_of(opened, question.id).info.trace_id for question in opened.of("anna")}


def test_a_question_that_mlflow_had_half_written_is_made_anew(opened: Key, home: Path) -> None:
    question = opened.of("anna")[-1].id
    trace_id = trace_of(opened, question).info.trace_id
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        assert database.execute("delete from spans where trace_id = ?", (trace_id,)).rowcount == 1
    made: list[int] = []
    show(opened, lambda done, of: made.append(done))
    assert made == [12]
    again = trace_of(opened, question)
    assert again.info.trace_id != trace_id
    assert again.data.spans


def test_no_field_of_a_trace_tells_the_model_the_run_or_who_opened(opened: Key, home: Path) -> None:
    """Searched in the whole trace as MLflow gives it; the store's own address of its files is all that is left out."""
    hidden = [*SECRETS, opened.run, *(each.digest for each in opened.models), "anna", "ben", str(opened.seed)]
    hidden += [getpass.getuser(), "pytest", "py.test", *(pair.prompt_id for pair in opened.pairs), *(OPTIONS[2:])]
    for trace in traces():
        fields = json.loads(trace.to_json())
        place = fields["info"]["tags"].pop("mlflow.artifactLocation")
        assert place.startswith(f"file://{home}/mlflow/artifacts/")
        text = json.dumps(fields).casefold()
        assert not [word for word in hidden if word and word.casefold() in text]
        assert not {"mlflow.sourceRun", "mlflow.modelId"} & fields["info"]["trace_metadata"].keys()
        assert fields["info"]["trace_metadata"]["mlflow.user"] == "review"
        assert set(fields["info"]["tags"]) == {
            *("question", "review"),
            *("mlflow.traceName", "mlflow.trace.spansLocation"),
        }


def test_a_trace_has_the_one_shape_that_is_shown_whole(opened: Key) -> None:
    question = next(each for each in opened.questions if each.kind == "pair")
    (span,) = trace_of(opened, question.id).data.spans
    assert span.span_type == "CHAT_MODEL"
    ((role, asked),) = [tuple(each.values()) for each in span.inputs["messages"]]
    assert (role, opened.pair_of(question).turns[-1].content in asked) == ("user", True)
    ((choice),) = span.outputs["choices"]
    first, second = choice["message"]["content"].split("\n\n---\n\n### Answer B\n\n")
    assert (first.removeprefix("### Answer A\n\n"), second) == opened.shown(question)


def test_the_newest_answer_of_a_person_counts(opened: Key) -> None:
    """Two answers of one source, one of another name, one of a model: the last that a person gave."""
    import mlflow
    from mlflow.entities import AssessmentSource

    question = opened.of("ben")[0]
    trace_id = trace_of(opened, question.id).info.trace_id
    give(trace_id, "A is better")
    give(trace_id, "B is better", comment="= kinder")
    found = answers_of(opened, None)[question.id]
    assert (found.answer, found.comment, found.source) == ("B is better", "= kinder", "default")
    mlflow.log_feedback(trace_id=trace_id, name="preference", value="Tie", source=AssessmentSource("LLM_JUDGE", "m"))
    mlflow.log_feedback(trace_id=trace_id, name="kind", value="Tie", source=AssessmentSource("HUMAN", "ben"))
    assert answers_of(opened, None)[question.id].answer == "B is better"


def test_a_declined_question_is_no_answer_until_there_is_one(opened: Key) -> None:
    from mlflow.genai import review_queues

    question = opened.of("ben")[1]
    experiment = client().get_experiment_by_name(experiment_name(NAME)).experiment_id
    queue = review_queues.get_review_queue(name="ben 1", experiment_id=experiment).queue_id
    trace_id = trace_of(opened, question.id).info.trace_id
    review_queues.set_review_queue_item_status(queue, item_id=trace_id, status="declined", completed_by="ben")
    assert answers_of(opened, None)[question.id].answer is None
    give(trace_id, "Tie")
    assert answers_of(opened, None)[question.id].answer == "Tie"


def test_answers_become_a_win_rate_in_the_run(opened: Key, run: str) -> None:
    """Anna prefers the new model on all four prompts, Ben on two, a purple answer is none.

    Kappa: p_o = 1/2, and either answer is chosen by chance half of the time, so 0.
    """
    lost = [each.pair for each in opened.of("ben") if each.kind == "pair"][:2]
    chosen = answered_by(opened, "anna", likes(lambda q: "new"))
    chosen |= answered_by(opened, "ben", likes(lambda q: "old" if q.pair in lost and q.kind != "gold" else "new"))
    purple = opened.of("anna")[0].id
    for name, value in chosen.items():
        give(trace_of(opened, name).info.trace_id, "purple" if name == purple else value)
    code, said = preflow("collect", run, "--review", "1")
    assert (code, "1 of 12 questions are open, 1 of them with an answer outside the options" in said) == (1, True)
    kept = human_review(run)
    assert kept is not None
    assert (kept.win_rate, kept.counts) == (None, False)
    assert preflow("status", run, "--review", "1") == (
        1,
        "anna: 5 of 6 done, 1 with an answer outside the options ben: 6 of 6 done",
    )
    give(trace_of(opened, purple).info.trace_id, chosen[purple])
    code, said = preflow("collect", run, "--review", "1")
    assert (code, "agree too little: kappa 0.00 on 4 pairs" in said) == (1, True)
    file = reviews_folder(NAME) / "1" / KEY
    assert json.loads(file.read_text())["settings"]["min_agreement"] == 0.2


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


def test_a_review_is_opened_with_settings_of_the_command(home: Path, run: str) -> None:
    """Half of 4 pairs once more, where the recipe says a tenth."""
    sheets = ("--csv", str(home / "set sheets"))
    half = ("--set", "evaluation.review.repeats=0.5")
    code, said = preflow("open", run, "--reviewers", "emil", "--pairs", "4", *sheets, *half)
    assert (code, "4 pairs, repeated: 2, gold: 1" in said) == (0, True), said
    code, said = preflow("open", run, "--reviewers", "emil", *sheets, "--set", "evaluation.review.repeat=1")
    assert (code, "repeats" in said) == (2, True), said


def fill(file: Path, answers: dict[str, str]) -> None:
    head, *rows = cells(file)
    save(file, [head, *([*row[:4], answers[row[0]], ""] for row in rows)])


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


def test_two_models_that_answer_alike_have_nothing_to_compare(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests.fixtures.reviewed_run, "answer", lambda model, number: "the same")
    run = finished_run(home / "alike", "alike")
    code, said = preflow("open", run, "--reviewers", "anna")
    assert (code, f"answer all {PROMPTS} prompts alike: compare with another one" in said) == (2, True)


def test_what_cannot_be_opened_or_collected_says_why(home: Path, run: str) -> None:
    refused = {
        ("open", run, "--reviewers", " , "): "give --reviewers NAME,NAME",
        ("open", run, "--reviewers", "anna,Anna"): "two reviewers have one name",
        ("open", run, "--reviewers", "../etc"): "cannot be a reviewer's name",
        ("open", run, "--reviewers", "anna", "--against", "dpo"): "has sft and base to compare its dpo model with",
        ("open", run, "--reviewers", "anna", "--against", "champion"): "mine-42 has no champion",
        ("open", run, "--reviewers", "anna", "--prompts", "all"): "expected test or train",
        ("collect", run, "--review", "99"): "has no review 99 in this store",
        ("collect", "f" * 32): "MLflow at sqlite",
        ("collect", run, "--csv", str(home)): "has no sheet of",
    }
    for arguments, message in refused.items():
        code, said = preflow(*arguments)
        assert (code, message in said) == (2, True), (arguments, said)
