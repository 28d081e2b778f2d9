"""The harness as it is used here: models in memory, one result for each document, no figures of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from preflow.benchmarks.tasks import Task
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.errors import ConfigError


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """What came of one document.

    Attributes:
        id: Digest of the document, the same for every model.
        metric: The first metric of the task.
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
            ConfigError: A task that is named cannot be loaded.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        named = [task.name for task in tasks if isinstance(task.settings, str)]
        try:
            with no_progress_bars():
                found = simple_evaluate(
                    model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size),
                    tasks=[task.settings for task in tasks],
                    num_fewshot=settings.num_fewshot,
                    limit=settings.limit,
                    bootstrap_iters=0,
                    log_samples=True,
                    apply_chat_template=settings.chat and tokenizer.chat_template is not None,
                    task_manager=TaskManager(include_defaults=bool(named)),
                )
        except (ConnectionError, KeyError, ValueError) as error:
            if not named:
                raise
            raise ConfigError(
                f"a task of {', '.join(named)} cannot be loaded: {error}. The harness downloads its own tasks; give a "
                "task with local documents as a file"
            ) from error
        return {task.name: _results(found["samples"][task.name]) for task in tasks}


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


def _results(samples: Sequence[Mapping[str, Any]]) -> list[DocumentResult]:
    first = samples[0]["filter"]
    kept = [sample for sample in samples if sample["filter"] == first]
    return [
        DocumentResult(str(each["doc_hash"]), str(each["metrics"][0]), float(each[each["metrics"][0]])) for each in kept
    ]
