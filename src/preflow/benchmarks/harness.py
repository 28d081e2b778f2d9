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
        metric: The first metric of the task that is a number of each document, more being better.
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
        return {name: _results(name, list(parts), found) for name, parts in loaded.items()}


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


def _results(name: str, parts: Sequence[str], found: Mapping[str, Any]) -> list[DocumentResult]:
    """Results of one task, or of all parts of a group."""
    every = [each for part in parts for each in _of_part(name, part, found)]
    metrics = sorted({each.metric for each in every})
    if len(metrics) > 1:
        raise ConfigError(
            f"the benchmark {name} has parts that are measured differently ({', '.join(metrics)}): name parts instead, "
            f"such as {parts[0]}"
        )
    return every


def _of_part(name: str, part: str, found: Mapping[str, Any]) -> list[DocumentResult]:
    samples = found["samples"][part]
    kept = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    better = found["higher_is_better"][part]
    metrics = list(kept[0]["metrics"])
    metric = next((each for each in metrics if better.get(each) and isinstance(kept[0][each], Real)), None)
    if metric is None:
        raise ConfigError(
            f"the benchmark {name} cannot be compared document by document: of its metrics ({', '.join(metrics)}) none "
            "is a number of each document of which more is better"
        )
    return [DocumentResult(str(each["doc_hash"]), metric, float(each[metric])) for each in kept]
