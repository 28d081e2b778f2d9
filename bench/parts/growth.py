"""How the time of the functions of data validation grows with the text that they are given.

The functions are found by walking the modules; a parameter is filled by its type. What cannot be filled (a path, an
array of measures) is not called here.
"""

import importlib
import inspect
import math
import pkgutil
import time
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.data.files.raw_rows import RawRow
from preflow.data.quality.rows.ingest import ChunkTexts
from preflow.data.quality.rows.word_hashes import Words
from preflow.data.row_formats.problems import RowProblem
from preflow.data.row_formats.row import Row, RowNotes
from preflow.data.rows import Message
from preflow.errors import PreflowError

PACKAGES = ("preflow.data", "expectations")
#: Functions whose text is a name that is looked up elsewhere: on the hub, or as a folder of a model.
_LOOKED_UP = frozenset({"pin_commit", "read_hub", "load_renderer"})
#: Refusals of a text that is not of the wanted form, which take their time too.
_REFUSALS = (
    OSError,
    PreflowError,
    RowProblem,
    RecursionError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    StopIteration,
)
#: Letters in the texts, three doublings apart, and CPU seconds below which growth is not measured.
LENGTHS, FLOOR = (250, 2000, 16_000), 0.003
#: CPU seconds of one call after which no longer text is tried.
_ENOUGH = 0.3
Call = Callable[[str], Any]

#: Kinds of texts, each a function of its length.
INPUTS: dict[str, Callable[[int], str]] = {
    "words": lambda n: "the old tower stands near a river " * (n // 34),
    "one letter": lambda n: "a" * n,
    "one word": lambda n: "no " * (n // 3),
    "other words": lambda n: " ".join(f"w{number:x}" for number in range(n // 5)),
    "names": lambda n: ", ".join(f"Name{number:x}" for number in range(n // 9)),
    "digits": lambda n: "1" * n,
    "numbers": lambda n: "12 555-0100 " * (n // 12),
    "blanks": lambda n: "question" + " " * n + "y: z",
    "blanks before an end": lambda n: "x" + " " * n + "y:",
    "steps": lambda n: "x" + " " * n + "step",
    "line ends": lambda n: "x" + "\n" * n + "y: z",
    "line ends and blanks": lambda n: "\n " * (n // 2) + "x:",
    "marks": lambda n: "#*: " * (n // 4) + "answer:",
    "signs": lambda n: "x ." + "=" * n,
    "quotes": lambda n: "'" * n + '"' * n,
    "backslashes": lambda n: "['" + "\\" * n,
    "brackets": lambda n: "[" * n,
    "objects": lambda n: '[{"role": "user", "content": "a"}, ' * (n // 36) + "]",
    "keys": lambda n: "{" + ", ".join(f'"k{number}": 1' for number in range(n // 10)) + "}",
    "keys, one twice": lambda n: "{" + ", ".join(f'"k{number}": 1' for number in range(n // 10)) + ', "k1": 2}',
    "combining marks": lambda n: "a" + "\u0301\u0323" * (n // 2),
    "letters that take no room": lambda n: "\u200b\u034f" * (n // 2),
    "mojibake": lambda n: "a\u9104\u4e00b" * (n // 4),
    "mojibake of Latin letters": lambda n: "caf\u00c3\u00a9 " * (n // 6),
    "mojibake of many kinds": lambda n: "".join(
        f"a{chr(0x4E00 + number)}{chr(0x7E00 + number)}b" for number in range(n // 4)
    ),
    "East Asian": lambda n: "\u4e2d\u6587" * (n // 2),
    "addresses": lambda n: "://" * (n // 3),
    "URLs": lambda n: "http://a:b@c.d/e " * (n // 17),
    "tokens of keys": lambda n: "eyJ" * (n // 3),
    "e-mail signs": lambda n: "a" * n + " @",
    "e-mail addresses": lambda n: "a@" * (n // 2),
    "markers": lambda n: "<s></s>" * (n // 7),
    "markers of turns": lambda n: "\n\nHuman: a\n\nAssistant: b" * (n // 26),
    "ends of turns": lambda n: "a" + "</s> " * (n // 5),
    "lists": lambda n: "\n1. a" * (n // 5),
}


def modules() -> Iterator[ModuleType]:
    """Every module of data validation."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            yield importlib.import_module(found.name)


def text_functions() -> dict[str, Call]:
    """Every function of data validation that takes text, by its name, as a function of one text."""
    found: dict[str, Call] = {}
    for module in modules():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and name not in _LOOKED_UP:
                for whole in (False, True):
                    call = _call(inspect.unwrap(function), whole=whole)
                    if call is not None:
                        found[f"{module.__name__}.{name}{' (one text)' if whole else ''}"] = call
    return found


def _call(function: Callable[..., Any], *, whole: bool) -> Call | None:
    """The function with every parameter made of one text; none where one cannot be, or none is of text.

    Args:
        function: Any function.
        whole: Whether a list of texts holds the text alone, and not its words: only for functions that take a list.
    """
    hints = typing.get_type_hints(function)
    lists = [name for name, hint in hints.items() if name != "return" and hint in (*_LISTS, Words)]
    if whole and not lists:
        return None
    makers: dict[str, Call] = {}
    takes_text = False
    for name, parameter in inspect.signature(function).parameters.items():
        maker, is_text = _maker(hints.get(name, Any), len(makers), whole=whole)
        if maker is None:
            if parameter.default is inspect.Parameter.empty:
                return None
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        takes_text = takes_text or is_text
        makers[name] = maker
    if not takes_text:
        return None
    positional = [name for name, p in inspect.signature(function).parameters.items() if p.kind != p.KEYWORD_ONLY]

    def call(text: str) -> Any:
        given = {name: maker(text) for name, maker in makers.items()}
        first = [given.pop(name) for name in positional if name in given]
        begin = time.thread_time()
        try:
            result = function(*first, **given)
            if isinstance(result, Iterator):
                deque(result, maxlen=0)
        except _REFUSALS:
            pass
        return time.thread_time() - begin

    return call


def _maker(hint: Any, place: int, *, whole: bool) -> tuple[Call | None, bool]:
    """How a value of a type is made of a text, and whether it holds the text; of the second text one word differs."""
    if typing.get_origin(hint) is typing.Literal:
        return lambda _: typing.get_args(hint)[0], False
    if hint in (*_LISTS, Words):
        return partial(_made, partial(_list, Words.of if hint is Words else list, whole), place), True
    for hints, maker in (*_OF_TEXT, *_OTHERS):
        if hint in hints:
            return partial(_made, maker, place), (hints, maker) in _OF_TEXT
    return None, False


def _made(maker: Call, place: int, text: str) -> Any:
    return maker(text if not place % 2 else f"{text} end")


def _list(kind: Callable[[list[str]], Any], whole: bool, text: str) -> Any:
    return kind([text] if whole else text.split() or [text])


def _row(text: str) -> RawRow:
    return RawRow("f", 1, {"prompt": text, "completion": f"{text} a", "chosen": text, "rejected": f"{text} b"})


def _object(text: str) -> dict[str, Any]:
    return {**dict.fromkeys(text.split(), text[:9]), "role": "user", "content": text}


_LISTS = (list[str], Sequence[str], Iterable[str])
#: Types of parameters and how a value of them is made of a text.
_OF_TEXT: tuple[tuple[tuple[Any, ...], Call], ...] = (
    ((str, str | None, Any, object), lambda text: text),
    ((set[str], frozenset[str]), lambda text: set(text.split())),
    ((bytes,), lambda text: text.encode("utf-8", "surrogatepass")),
    ((dict[str, Any], dict[str, object], Mapping[str, Any], dict[Any, Any]), _object),
    ((RawRow,), _row),
    ((Row,), lambda text: Row.of(_row(text), ReadingSettings())),
    ((tuple[Message, ...], Sequence[Message]), lambda text: (Message("user", text), Message("assistant", text))),
)
#: The same of types that hold no text.
_OTHERS: tuple[tuple[tuple[Any, ...], Call], ...] = (
    ((RowNotes,), lambda _: RowNotes()),
    ((ReadingSettings,), lambda _: ReadingSettings()),
    ((ValidationSettings,), lambda _: ValidationSettings()),
    ((ChunkTexts,), lambda _: ChunkTexts("demonstrations")),
    ((int,), lambda _: 1),
    ((int | None,), lambda _: None),
    ((float,), lambda _: 0.9),
    ((bool,), lambda _: True),
)


def growth(call: Call, make: Callable[[int], str]) -> float | None:
    """The exponent of a function's CPU time in a text's length, over three doublings; none below what is measurable.

    The best of several calls counts, and a large exponent is measured again: what disturbs makes a call slower, never
    faster.
    """
    found = None
    before = call(make(LENGTHS[0]))
    for short, long in pairwise(LENGTHS):
        after = call(make(long))
        found = None if after < FLOOR else math.log2(after / max(before, 1e-7)) / math.log2(long / short)
        for _ in range(3):
            if found is None or found <= LIMIT:
                break
            before = min(before, *(call(make(short)) for _ in range(5)))
            after = min(after, call(make(long)))
            found = math.log2(after / max(before, 1e-7)) / math.log2(long / short)
        if after > _ENOUGH:
            break
        before = after
    return found


#: The largest exponent that n log n, with the noise of a busy machine, is taken to have; a square has 2.
LIMIT = 1.6
