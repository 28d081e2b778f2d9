"""The harness as it is used here: models in memory, one result for each document, no figures of its own."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

from preflow.benchmarks.loading import load_tasks, manager, sandboxed_templates
from preflow.benchmarks.tasks import Task
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.errors import ConfigError
from preflow.redaction import quoted


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """What came of one document.

    Attributes:
        id: Digest of the document, the same for every model.
        metric: The first metric of all parts of the task that is a number of each document, more being better.
        value: Its value, more being better: 1 or 0 where an answer is right or wrong.
    """

    id: str
    metric: str
    value: float


class Runner(Protocol):
    """What does tasks."""

    def run(
        self, model: Any, tokenizer: Any, tasks: Sequence[Task], settings: BenchmarkSettings
    ) -> Mapping[str, list[DocumentResult]]:
        """Results of one model by task, N documents each, in the order of the documents."""
        ...


class Harness:
    """lm-evaluation-harness."""

    def run(
        self, model: Any, tokenizer: Any, tasks: Sequence[Task], settings: BenchmarkSettings
    ) -> Mapping[str, list[DocumentResult]]:
        """Do tasks; the harness's own standard errors are not computed, as they are not paired.

        Raises:
            ConfigError: A task cannot be loaded, a template reaches for more than its document, or a task has no
                metric to compare.
        """
        from jinja2 import TemplateError
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)  # warns of models that are in memory
        with no_progress_bars(), sandboxed_templates():
            loaded = load_tasks(tasks)
            try:
                found = simple_evaluate(
                    model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size),
                    tasks=[task for parts in loaded.values() for task in parts.values()],
                    num_fewshot=settings.num_fewshot,
                    limit=settings.limit,
                    bootstrap_iters=0,
                    log_samples=True,
                    apply_chat_template=settings.chat and tokenizer.chat_template is not None,
                    task_manager=manager(named=any(isinstance(task.settings, str) for task in tasks)),
                )
            except TemplateError as error:
                raise ConfigError(
                    f"a template of the benchmarks {', '.join(loaded)} cannot be filled: {quoted(str(error), 400)}. "
                    "Templates read their document and nothing else: correct the task's file"
                ) from error
        return {name: document_results(name, list(parts), found) for name, parts in loaded.items()}


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep the harness's own bars out of a run's output; most of them have no setting for it."""
    from tqdm import tqdm

    own = tqdm.__init__

    def silent(self: Any, *args: Any, **options: Any) -> None:
        own(self, *args, **{**options, "disable": True})

    tqdm.__init__ = silent
    try:
        yield
    finally:
        tqdm.__init__ = own


def document_results(name: str, parts: Sequence[str], found: Mapping[str, Any]) -> list[DocumentResult]:
    """Results of one task, or of all parts of a group, by the first metric that all parts have.

    Args:
        name: The task's name.
        parts: The harness's tasks of it.
        found: What the harness returned.

    Raises:
        ConfigError: The parts have no number of each document in common of which more is better. Metrics that tell so
            are refused when tasks are loaded; those of a task's own code may not.
    """
    numbers = [_numbers(found["samples"][part], found["higher_is_better"][part]) for part in parts]
    metric = next((each for each in numbers[0] if all(each in others for others in numbers)), None)
    if metric is None:
        which = "; ".join(f"{part}: {', '.join(each) or 'none'}" for part, each in zip(parts, numbers, strict=True))
        raise ConfigError(
            f"the benchmark {name} cannot be compared document by document: expected one metric for all parts that is "
            f"a number of each document, more being better, got {which}. Name other tasks, or parts of it"
        )
    return [
        DocumentResult(str(sample["doc_hash"]), metric, float(sample[metric]))
        for part in parts
        for sample in _of_one_filter(found["samples"][part])
    ]


def _numbers(samples: Sequence[Mapping[str, Any]], better: Mapping[str, Any]) -> list[str]:
    """Metrics of a part that are a number of each document, more being better, in its order."""
    first = samples[0]
    return [metric for metric in first["metrics"] if better.get(metric) and isinstance(first[metric], Real)]


def _of_one_filter(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A document is there once for each filter of its answer: those of the first."""
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
