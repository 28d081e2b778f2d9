"""A review in MLflow's queues: opened until it is whole, blind, answered through MLflow's API, counted."""

import getpass
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import tasks.review
import tasks.tracking.review.queues
from preflow.review.key import KEY, OPTIONS, Key, keys_in
from tasks.review import answers_of, open_review, reviews_folder, show
from tasks.tracking.client import client
from tasks.tracking.past_runs import past_run
from tasks.tracking.review.collected import human_reviews
from tasks.tracking.review.queues import experiment_name
from tests.fixtures.reviewed_run import SECRETS, answered_by, give, likes, trace_of
from tests.unit.tasks.review.commands import NAME, preflow

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds


def traces() -> list[Any]:
    store = client()
    experiment = store.get_experiment_by_name(experiment_name(NAME)).experiment_id
    return list(store.search_traces(locations=[experiment], max_results=400))


@pytest.fixture(scope="module")
def opened(in_home: None, run: str) -> Key:
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
    assert [key for key in keys_in(reviews_folder(NAME)) if key.reviewers == opened.reviewers] == [opened]
    from mlflow.genai import review_queues

    experiment = client().get_experiment_by_name(experiment_name(NAME)).experiment_id
    queues = {queue.name: queue.queue_id for queue in review_queues.list_review_queues(experiment_id=experiment)}
    annas = f"anna {opened.number}"
    assert set(queues) == {annas, f"ben {opened.number}"}
    assert addresses["anna"].endswith(queues[annas])
    items = {item.item_id for item in review_queues.list_review_queue_items(queues[annas])}
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


def _is_in(word: str, text: str) -> bool:
    """Whether a text holds a word; a short one must stand alone: ids in base64 hold three letters by chance."""
    edge = "[a-z0-9+/=]"
    return re.search(rf"(?<!{edge}){word}(?!{edge})", text) is not None if len(word) < 5 else word in text


def test_no_field_of_a_trace_tells_the_model_the_run_or_who_opened(opened: Key, home: Path) -> None:
    """Searched in the whole trace as MLflow gives it; the store's own address of its files is all that is left out."""
    hidden = [*SECRETS, opened.run, *(each.digest for each in opened.models), "anna", "ben", str(opened.seed)]
    hidden += [getpass.getuser(), "pytest", "py.test", *(pair.prompt_id for pair in opened.pairs), *(OPTIONS[2:])]
    for trace in traces():
        fields = json.loads(trace.to_json())
        place = fields["info"]["tags"].pop("mlflow.artifactLocation")
        assert place.startswith(f"file://{home}/mlflow/artifacts/")
        text = json.dumps(fields).casefold()
        assert not [word for word in hidden if word and _is_in(word.casefold(), text)]
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
    queue = review_queues.get_review_queue(name=f"ben {opened.number}", experiment_id=experiment).queue_id
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
    code, said = preflow("collect", run, "--review", str(opened.number))
    assert (code, "1 of 12 questions are open, 1 of them with an answer outside the options" in said) == (1, True)
    (kept,) = [each for each in human_reviews(run) if each.review == opened.number]
    assert (kept.win_rate, kept.counts) == (None, False)
    assert preflow("status", run, "--review", str(opened.number)) == (
        1,
        "anna: 5 of 6 done, 1 with an answer outside the options ben: 6 of 6 done",
    )
    give(trace_of(opened, purple).info.trace_id, chosen[purple])
    code, said = preflow("collect", run, "--review", str(opened.number))
    assert (code, "agree too little: kappa 0.00 on 4 pairs" in said) == (1, True)
    file = reviews_folder(NAME) / str(opened.number) / KEY
    assert json.loads(file.read_text())["settings"]["min_agreement"] == 0.2
