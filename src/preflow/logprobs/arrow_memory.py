"""Allocation of exactly the size of the data, for tables that are kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def exact_memory() -> Iterator[None]:
    """Let Arrow allocate from the system: its own pool takes half as much again for many blocks of a megabyte.

    The setting is the process's; another thread that allocates at the same time does so from the system too.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
