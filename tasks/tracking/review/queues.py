"""A review in MLflow's Review tab: one queue for each reviewer, one trace for each question, and the answers on it.

A trace shows a person the prompt and both answers, and nothing of the models: it is made in an experiment of its own,
outside any run, and what MLflow notes of its own accord (script, user, commit) is overwritten. The one tag by which a
trace is known is the random name of its question; what that stands for is in the key alone.
"""

from collections.abc import Callable, Iterator
from typing import Any

from preflow.environment import mlflow_uri
from preflow.errors import ReviewError
from preflow.redaction import without_login
from preflow.review.collecting import Given
from preflow.review.key import OPTIONS, Key, Question
from preflow.review.wording import answers_text, prompt_text
from tasks.tracking.client import client
from tasks.tracking.pipeline_run import make_experiment

#: The question's name in MLflow, beside which its options stand.
_SCHEMA = "preference"
_SPAN = "question"
_QUESTION, _REVIEW = "question", "review"
#: What MLflow would note of who opens a review, and from where.
_NEUTRAL = {
    "mlflow.source.name": "review",
    "mlflow.user": "review",
    "mlflow.source.git.commit": "",
    "mlflow.source.git.branch": "",
    "mlflow.source.git.repoURL": "",
}
_PAGE = 100


def experiment_name(recipe: str) -> str:
    """The experiment of a recipe's reviews."""
    return f"{recipe}.review"


def queue_name(key: Key, reviewer: str) -> str:
    """The name of a reviewer's queue, as the Review tab lists it."""
    return f"{reviewer} {key.number}"


def numbers_in_use(recipe: str) -> list[int]:
    """Numbers of the reviews whose queues there are: other stores may have opened some."""
    store = client()
    found = store.get_experiment_by_name(experiment_name(recipe))
    if found is None:
        return []
    ends = [name.rpartition(" ")[2] for name in _queues(found.experiment_id)]
    return [int(end) for end in ends if end.isdigit()]


def show(key: Key, progress: Callable[[int, int], None]) -> dict[str, str]:
    """Make what is missing of a review's traces and queues; called again, it adds nothing twice.

    Args:
        key: The review.
        progress: Told how many of how many questions are there.

    Returns:
        The address of each reviewer's queue below the MLflow UI's own.

    Raises:
        ReviewError: MLflow did not keep a trace.
    """
    import mlflow

    experiment = make_experiment(client(), experiment_name(key.recipe))
    mlflow.flush_trace_async_logging()  # what an interrupted call in this process has not sent yet
    there = _usable(experiment, key)
    broken = [trace.info.trace_id for name, trace in _traces(experiment, key) if name not in there]
    if broken:
        client().delete_traces(experiment, trace_ids=broken)
    missing = [question for question in key.questions if question.id not in there]
    for done, question in enumerate(missing, start=len(key.questions) - len(missing) + 1):
        _make_trace(experiment, key, question)
        progress(done, len(key.questions))
    mlflow.flush_trace_async_logging()
    traces = _usable(experiment, key)
    lost = [question.id for question in key.questions if question.id not in traces]
    if lost:
        raise ReviewError(
            f"MLflow at {without_login(mlflow_uri())} did not keep {len(lost)} of {len(key.questions)} questions: open "
            "the review again, which goes on from here"
        )
    schema = _schema(experiment, key.settings.criteria)
    return {name: _queue(experiment, key, name, schema, traces) for name in key.reviewers}


def answers(key: Key) -> dict[str, Given]:
    """The newest answer of a person to each question that has one or was declined, by question."""
    store = client()
    experiment = store.get_experiment_by_name(experiment_name(key.recipe))
    if experiment is None:
        return {}
    found, questions = {}, {}
    for name, trace in _traces(experiment.experiment_id, key):
        questions[trace.info.trace_id] = name
        newest = max(filter(_is_an_answer, trace.info.assessments or ()), key=_age, default=None)
        if newest is not None:
            found[name] = Given(str(newest.value), newest.rationale or "", newest.source.source_id)
    for trace_id in _declined(experiment.experiment_id, key):
        if trace_id in questions:
            found.setdefault(questions[trace_id], Given(None))
    return found


def _is_an_answer(assessment: Any) -> bool:
    """Whether a person gave it, to our question, and has not replaced it."""
    if assessment.name != _SCHEMA or assessment.feedback is None or assessment.valid is False:
        return False
    return bool(assessment.source.source_type == "HUMAN")


def _age(assessment: Any) -> tuple[int, int]:
    return assessment.last_update_time_ms or 0, assessment.create_time_ms or 0


def _usable(experiment: str, key: Key) -> dict[str, str]:
    """Traces by question: those that show their texts, and those that have an answer.

    MLflow writes a trace and its texts apart: a kill in between leaves a question that shows nothing.
    """
    whole = {trace.info.trace_id for _, trace in _traces(experiment, key, whole=True)}
    found = {name: trace.info for name, trace in _traces(experiment, key)}
    return {name: info.trace_id for name, info in found.items() if info.trace_id in whole or info.assessments}


def _traces(experiment: str, key: Key, *, whole: bool = False) -> Iterator[tuple[str, Any]]:
    """A review's traces, each with the name of its question; with their texts, and those alone that have some."""
    token, wanted = None, {question.id for question in key.questions}
    while True:
        page = client().search_traces(
            locations=[experiment],
            filter_string=f"tags.{_REVIEW} = '{key.number}'",
            max_results=_PAGE,
            page_token=token,
            include_spans=whole,
        )
        for trace in page:
            if trace.info.tags.get(_QUESTION) in wanted:
                yield trace.info.tags[_QUESTION], trace
        token = page.token
        if not token:
            return


def _make_trace(experiment: str, key: Key, question: Question) -> None:
    """The one shape that the Review tab shows as a conversation, in Markdown and whole."""
    import mlflow

    pair = key.pair_of(question)
    span = mlflow.start_span_no_context(
        name=_SPAN,
        span_type="CHAT_MODEL",
        inputs={"messages": [{"role": "user", "content": prompt_text(pair.turns)}]},
        tags={_QUESTION: question.id, _REVIEW: str(key.number)},
        metadata=_NEUTRAL,
        experiment_id=experiment,
    )
    text = answers_text(*key.shown(question))
    span.end(outputs={"choices": [{"message": {"role": "assistant", "content": text}}]})


def _schema(experiment: str, criteria: str) -> str:
    """The id of the question's form, which shows the criteria."""
    from mlflow.genai import label_schemas

    found = next((each for each in label_schemas.list_label_schemas(experiment) if each.name == _SCHEMA), None)
    if found is None:
        options = label_schemas.InputCategorical(options=list(OPTIONS))
        found = label_schemas.create_label_schema(
            _SCHEMA,
            type="feedback",
            input=options,
            instruction=criteria,
            enable_comment=True,
            experiment_id=experiment,
        )
    elif found.instruction != criteria:
        label_schemas.update_label_schema(str(found.schema_id), instruction=criteria)
    return str(found.schema_id)


def _queue(experiment: str, key: Key, reviewer: str, schema: str, traces: dict[str, str]) -> str:
    """A reviewer's queue with all questions in it; its address."""
    from mlflow.genai import review_queues

    name = queue_name(key, reviewer)
    found = _queues(experiment).get(name.casefold())
    if found is None:
        found = review_queues.create_review_queue(
            name, queue_type="custom", users=[reviewer], schema_ids=[schema], experiment_id=experiment
        ).queue_id
    items = [traces[question.id] for question in key.of(reviewer)]
    for start in range(0, len(items), _PAGE):
        review_queues.add_items_to_review_queue(found, item_ids=items[start : start + _PAGE])
    return f"/#/experiments/{experiment}/review-queue?selectedQueueId={found}"


def _queues(experiment: str) -> dict[str, str]:
    """Ids of an experiment's queues by name, in lower case."""
    from mlflow.genai import review_queues

    found: dict[str, str] = {}
    token = None
    while True:
        page = review_queues.list_review_queues(experiment_id=experiment, max_results=_PAGE, page_token=token)
        found |= {queue.name.casefold(): queue.queue_id for queue in page}
        token = page.token
        if not token:
            return found


def _declined(experiment: str, key: Key) -> set[str]:
    """Traces that their reviewer declined to answer."""
    from mlflow.genai import review_queues

    queues = _queues(experiment)
    found: set[str] = set()
    for name in {queue_name(key, reviewer).casefold() for reviewer in key.reviewers} & queues.keys():
        token = None
        while True:
            page = review_queues.list_review_queue_items(
                queues[name], status="declined", max_results=_PAGE, page_token=token
            )
            found |= {item.item_id for item in page}
            token = page.token
            if not token:
                break
    return found
