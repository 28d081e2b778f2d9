"""Out of memory: models no longer used are freed, and batches are halved."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

T = TypeVar("T")
R = TypeVar("R")


def free_unused() -> None:
    """Free models that are no longer used, on a GPU too.

    Trainers, trained models and 4-bit ones hold themselves in cycles, which Python frees when it happens to look: until
    then a GPU would hold the model of every earlier step beside the next one's.
    """
    clear_device_cache(garbage_collection=True)


def run_in_halving_batches(
    items: Sequence[T],
    size: int,
    run: Callable[[Sequence[T]], R],
    tell: Callable[[int, int], None],
    *,
    may: bool = True,
) -> Iterator[tuple[Sequence[T], R]]:
    """Run items in batches, in order: after running out of memory in ones of half the size.

    Args:
        items: All of them.
        size: Of a batch, to begin with.
        run: On a batch.
        tell: Receives the size that did not fit, and the next one.
        may: Whether sizes may change: not where several processes go through the batches together.

    Yields:
        Every batch with its result.

    Raises:
        RuntimeError: Out of memory for one item alone, or something else was wrong.
    """
    done = 0
    while done < len(items):
        batch = items[done : done + size]
        try:
            result = [run(batch)]
        except RuntimeError as error:
            if len(batch) == 1 or not may or not should_reduce_batch_size(error):
                raise
            result = []
        if result:
            yield batch, result[0]
            done += len(batch)
            continue
        free_unused()  # here, where no traceback holds what did not fit any more
        size = len(batch) // 2
        tell(len(batch), size)
