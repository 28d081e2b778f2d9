"""Log-probs by content: computed once per weights, numerics and token ids, kept in shards, shared by every run.

The key of a value is what it depends on and nothing else: the digest of the weights that are used, the numerics of the
forward, and the token ids of prompt and response. Learning rates, betas, row order, file names do not enter.
"""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from preflow.digests import code_essence, file_digest, json_digest
from preflow.maths import logprobs
from preflow.models import loading, packing, scoring
from preflow.models.scoring import Group, Scorer
from preflow.observer import Observer

SHARD_ROWS = 64
_SCHEMA = pa.schema([("key", pa.string()), ("logprobs", pa.list_(pa.list_(pa.float32())))])


def group_key(group: Group) -> str:
    """The content key of a prompt and its responses: SHA-256 over the lists of token ids."""
    prompt, responses = group
    return json_digest([list(prompt), *(list(response) for response in responses)])


class LogprobStore:
    """Per-token log-probs under one model of prompts' responses, in Parquet shards named by their own hash.

    A shard is written beside its place and renamed, so a reader never sees half of one; several processes may write at
    once, since every shard has a name of its own. A shard whose contents differ from its name is set aside.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open the store of one reference.

        Args:
            folder: Where the stores of all references lie.
            identity: What a value depends on besides the tokens: weights, numerics, versions.
        """
        self.folder = folder / json_digest(identity)[:32]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._values: dict[str, list[list[float]]] = {}
        for shard in sorted(self.folder.glob("*.parquet")):
            self._read(shard)

    def _read(self, shard: Path) -> None:
        if file_digest(shard) != shard.stem:
            shard.rename(shard.with_suffix(".broken"))
            return
        table = pq.read_table(shard, schema=_SCHEMA)
        keys, values = table.column("key").to_pylist(), table.column("logprobs").to_pylist()
        self._values.update(zip(keys, values, strict=True))

    def __contains__(self, group: Group) -> bool:
        return group_key(group) in self._values

    def get(self, group: Group) -> list[list[float]]:
        """Per-token log-probs of a prompt's responses, nats, as many as each response has tokens."""
        return self._values[group_key(group)]

    def fill(self, groups: Sequence[Group], load: Callable[[], Scorer], observer: Observer, what: str) -> int:
        """Compute what is missing, shard by shard, and return how many groups that were.

        Args:
            groups: Prompts with the responses whose values are wanted.
            load: Gives the scorer; called only if something is missing, since loading a model is dear.
            observer: Hears progress.
            what: What is computed, for the progress line.
        """
        missing = list({group_key(group): group for group in groups if group not in self}.values())
        if not missing:
            return 0
        score = load()
        done = 0
        for shard in _chunks(missing, SHARD_ROWS):
            values = {}
            for group in shard:
                values[group_key(group)] = [response.tolist() for response in score(group)]
                done += 1
                observer.progress(done, len(missing), what)
            self._write(values)
        return len(missing)

    def _write(self, values: dict[str, list[list[float]]]) -> None:
        table = pa.table({"key": list(values), "logprobs": list(values.values())}, schema=_SCHEMA)
        partial = self.folder / f"partial-{os.getpid()}-{os.urandom(4).hex()}"
        pq.write_table(table, partial)
        partial.rename(self.folder / f"{file_digest(partial)}.parquet")
        self._values.update(values)


def numerics(precision_label: str) -> dict[str, str]:
    """What else the bits of a value depend on: device, dtypes, the code that computes it and its libraries."""
    import peft
    import transformers

    code = [code_essence(inspect.getsource(module)) for module in (scoring, packing, loading, logprobs)]
    return {
        "code": json_digest(code),
        "bitsandbytes": version("bitsandbytes") if find_spec("bitsandbytes") else "",
        "precision": precision_label,
        "tf32": str(torch.backends.cuda.matmul.allow_tf32),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def _chunks(groups: Sequence[Group], size: int) -> Iterator[Iterable[Group]]:
    for start in range(0, len(groups), size):
        yield groups[start : start + size]
