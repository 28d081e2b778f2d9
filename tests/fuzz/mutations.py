"""Changes of a file's bytes: small damage, pieces twice or from another file, and what parsers stumble over."""

import random
from collections.abc import Callable

#: Bytes that some parser treats in a way of its own.
ODD = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    "\u2028".encode(),
    "\u202e".encode(),
    b"\r",
    b"\x1b[31m",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b'"' * 7,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"{{" * 200,
    b"{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    b"{{ messages.append }}{{ 'a' * 999999 }}",
    b"&a [*a, *a]",
    b"<<: *x",
    b"!!python/object/apply:os.system",
    b"\\u0000",
    b"\\ud800",
    b" " * 20000,
    b"\n" * 20000,
    "é̂".encode() * 4000,
    b"null",
    b"true",
    b"../../etc/passwd",
    b"/dev/zero",
    b"-",
    b"~",
    b"=1+1",
)
#: Most bytes of a changed file.
MOST = 2_000_000
Change = Callable[[random.Random, bytes, bytes], bytes]


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to six changes, one after the other; ``other`` is a file from which pieces are taken."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(CHANGES)(rng, data, other)[:MOST]
    return data


def _place(rng: random.Random, data: bytes) -> int:
    return rng.randint(0, len(data))


def _piece(rng: random.Random, data: bytes) -> bytes:
    start = _place(rng, data)
    return data[start : start + rng.choice((1, 8, 64, 1024))]


def flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Some bits differ."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 32)) if data else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The file ends too soon."""
    return data[: _place(rng, data)]


def drop(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece is gone."""
    start = _place(rng, data)
    return data[:start] + data[start + rng.choice((1, 8, 64, 1024)) :]


def insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Something odd is in it."""
    start = _place(rng, data)
    return data[:start] + rng.choice(ODD) + data[start:]


def replace(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A word of it, everywhere or once, is something odd."""
    words = data.split()
    if not words:
        return data
    return data.replace(rng.choice(words), rng.choice(ODD), rng.choice((1, -1)))


def repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece of it occurs again and again."""
    start = _place(rng, data)
    return data[:start] + _piece(rng, data) * rng.choice((2, 100, 3000)) + data[start:]


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """It goes on as another file does."""
    return data[: _place(rng, data)] + other[_place(rng, other) :]


CHANGES: tuple[Change, ...] = (flip, cut, drop, insert, insert, replace, replace, repeat, splice)
