"""Limits for what others wrote and this process runs: how long a chat template takes, what it raises and multiplies."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What a template may raise beside Jinja's own errors: those of Python's operators and methods on the values in it, and
#: of the code that Jinja makes of it.
FAULTS = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    NameError,
    SyntaxError,
    RecursionError,
    MemoryError,
    TimeoutError,
)
LARGEST_NUMBER = 1_000_000
#: The width of a format, in either of Python's ways to write one.
_WIDE = re.compile(r"%[-+ #0]*\d*\.?\d{6}|\{[^{}]*:[^{}]*\d{6}")
_EXTENSIONS = ("jinja2.ext.loopcontrols", "jinja2.ext.do")
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


def has_large_number(template: str) -> bool:
    """Whether a template holds a number, or the width of a format, that is larger than any template needs.

    With one it could write a text of any length in one step, where no limit of time takes hold.
    """
    import jinja2.nodes

    try:
        nodes = [*jinja2.Environment(extensions=_EXTENSIONS).parse(template).find_all(jinja2.nodes.Const)]
    except (jinja2.TemplateError, RecursionError):  # of a block of its own; rendering says what is wrong
        return False
    except ValueError:  # more digits than Python reads
        return True
    values = [node.value for node in nodes]
    return any(_is_large(value) for value in values)


def _is_large(value: object) -> bool:
    """Of a constant: a number in digits is one, whether quoted or not; a width counts where a format has it."""
    if isinstance(value, str):
        digits = value.strip()
        is_number = len(digits) > len(str(LARGEST_NUMBER)) and digits.replace("_", "").isdecimal()
        return is_number or _WIDE.search(value) is not None
    return type(value) in (int, float) and not abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type]
