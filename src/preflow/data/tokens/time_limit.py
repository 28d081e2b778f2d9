"""A limit of time for what others wrote and this process runs: chat templates."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds that one rendering may take; an ordinary one takes a thousandth.
_SECONDS = 10.0


@contextmanager
def limited_time(seconds: float = _SECONDS) -> Iterator[None]:
    """A block that may take so long, or less where a timer of the caller ends sooner.

    In a thread other than the main one there is no limit, since no signal reaches it.

    Raises:
        TimeoutError: Its time is over.
    """
    left, begin = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if threading.current_thread() is not threading.main_thread() or 0 < left <= seconds:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - begin), 1e-3))
