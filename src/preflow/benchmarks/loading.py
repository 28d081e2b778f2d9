"""Tasks as the harness loads them: a file of settings runs nothing, whatever it contains."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from preflow.benchmarks.tasks import Task
from preflow.errors import ConfigError
from preflow.redaction import as_written, quoted

#: Metrics that the harness computes from all documents together: a document has no number of its own.
_OF_ALL_DOCUMENTS = frozenset({"f1", "mcc", "bleu", "chrf", "chrfpp", "ter", "brier_score", "likelihood", "bypass"})


def load_tasks(tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
    """The harness's tasks by the name of ours, and by their own: a group or a tag has several.

    Raises:
        ConfigError: One cannot be loaded, compared document by document, or run as text; or two have one name.
    """
    found: dict[str, dict[str, Any]] = {}
    owners: dict[str, Task] = {}
    for task in tasks:
        found[task.name] = _loaded(task)
        for part in found[task.name]:
            other = owners.setdefault(part, task)
            if other is not task:
                raise ConfigError(
                    f"evaluation.benchmarks.tasks has {part} twice, in {place(other)} and in {place(task)}: rename the "
                    "file's task, or leave one out"
                )
        require_comparable(task, found[task.name])
    return found


def require_comparable(task: Task, parts: Mapping[str, Any]) -> None:
    """Refuse a task that can give no numbers to compare, before any model does it.

    Args:
        task: The task.
        parts: The harness's tasks of it, by name.

    Raises:
        ConfigError: A part runs code that a model writes, shows pictures or sounds, or has no metric that is a number
            of each document, more being better; or parts have no such metric in common.
    """
    common: list[set[str]] = []
    for name, part in parts.items():
        which = f"the benchmark {place(task)}" if name == task.name else f"{name} of the benchmark {place(task)}"
        if getattr(part, "UNSAFE_CODE", False):
            raise ConfigError(f"{which} runs code that the model writes: leave it out")
        if getattr(part, "MULTIMODAL", False):
            raise ConfigError(f"{which} asks about pictures or sounds, and models are given text alone: leave it out")
        metrics = part.higher_is_better()
        own = getattr(getattr(part, "config", None), "process_results", None) is not None
        numbers = {each for each, more in metrics.items() if more and (own or each not in _OF_ALL_DOCUMENTS)}
        if not numbers or part.OUTPUT_TYPE == "loglikelihood_rolling":
            raise ConfigError(
                f"{which} cannot be compared document by document: of its metrics ({', '.join(metrics)}) none is a "
                "number of each document of which more is better"
            )
        common.append(numbers)
    if common and not set.intersection(*common):
        raise ConfigError(
            f"the benchmark {place(task)} has parts that are measured differently: name parts instead, such as "
            f"{next(iter(parts))}"
        )


def _loaded(task: Task) -> dict[str, Any]:
    named = isinstance(task.settings, str)
    if isinstance(task.settings, dict):
        _require_known_measures(task, task.settings)
    try:
        with sandboxed_templates():
            return dict(manager(named=named).load([task.settings])["tasks"])
    except Exception as error:  # of the harness, of its templates, of the library of data sets, of the hub
        why = error.args[0] if isinstance(error, KeyError) and error.args else error
        advice = "The harness downloads its own tasks; give a task with local documents as a file"
        raise ConfigError(
            f"the benchmark {place(task)} cannot be loaded: {quoted(str(why) or type(error).__name__, 400)}. "
            f"{advice if named else 'Correct the file'}"
        ) from error


def place(task: Task) -> str:
    """A task's name, with its file where it has one."""
    return f"{task.name} ({task.files[0]})" if task.files else task.name


def _require_known_measures(task: Task, settings: Mapping[str, Any]) -> None:
    """The harness looks for a metric that it does not know among those on the hub, which are code.

    Raises:
        ConfigError: A metric or a way of taking its mean is none of the harness's.
    """
    import lm_eval.api.metrics  # noqa: F401 - enters them in the lists
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY

    given = settings.get("metric_list") or []
    rows = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    for row in rows:
        if row.get("hf_evaluate"):
            raise ConfigError(f"the benchmark {place(task)} has hf_evaluate, which runs code of the hub: remove it")
        for setting, known in (("metric", METRIC_REGISTRY), ("aggregation", AGGREGATION_REGISTRY)):
            value = row.get(setting)
            if value is not None and (not isinstance(value, str) or value not in known):
                raise ConfigError(
                    f"the benchmark {place(task)} has {setting} {as_written(value)}, which is none of the harness's "
                    f"own: expected one of {', '.join(sorted(known))}"
                )


@cache
def manager(*, named: bool) -> Any:
    """The harness's list of tasks; reading all of its own takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=named)


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Templates of tasks read their documents and reach nothing else; the harness's own environment is no sandbox."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    own = utils.env
    sandbox = ImmutableSandboxedEnvironment(
        loader=own.loader, undefined=own.undefined, keep_trailing_newline=own.keep_trailing_newline
    )
    sandbox.filters.update(own.filters)
    utils.env = sandbox
    try:
        yield
    finally:
        utils.env = own
