"""Where a stage's work is done: in this process, or in the ranks that ``launch:`` of its recipe asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from preflow.config import Recipe
from preflow.observer import Observer
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from tasks.runtime.launcher import run_ranks

Spec = TypeVar("Spec", SftSpec, DpoSpec)


def in_processes(stage: str, work: Callable[[Spec, Path, Observer], None]) -> Callable[[Spec, Path, Observer], None]:
    """A training stage's work, in this process or in the ranks that ``launch:`` of its recipe asks for."""

    def run(spec: Spec, out: Path, observer: Observer) -> None:
        if spec.recipe.launch.num_processes > 1:
            from preflow.training.out_of_memory import retry_with_smaller_batches

            retry_with_smaller_batches(
                spec.recipe, stage, lambda recipe: run_ranks(stage, _with(spec, recipe), out, observer), observer
            )
        elif spec.recipe.launch.config is not None:
            run_ranks(stage, spec, out, observer)
        else:
            work(spec, out, observer)

    return run


def _with(spec: Spec, recipe: Recipe) -> Spec:
    return spec.model_copy(update={"recipe": recipe})


def filled(work: Callable[..., None]) -> Callable[[ReferenceSpec, Path, Observer], None]:
    """The reference stage's work, after the ranks of its recipe have filled the store.

    Args:
        work: ``run_reference``, which then finds every row and writes the artifact.
    """

    def run(spec: ReferenceSpec, out: Path, observer: Observer) -> None:
        distributed = spec.recipe.launch.num_processes > 1
        if distributed:
            run_ranks("reference", spec, out, observer)
        work(spec, out, observer, filled=distributed)

    return run
