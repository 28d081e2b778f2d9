"""Which files of a folder hold training data: other splits and the files of tools do not."""

import re
from collections.abc import Sequence
from pathlib import PurePath

#: Files with the name of a data file that ``datasets`` and others write beside the data.
HOUSEKEEPING = frozenset(
    {
        "state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json", "metadata.json",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "package.json",
    }
)  # fmt: skip
_TRAIN = frozenset({"train", "training"})
_OTHER = frozenset(
    {"test", "testing", "tests", "eval", "evaluation", "valid", "validation", "val", "dev", "heldout", "holdout"}
)
_WORDS = re.compile(r"[a-z]+")


def is_housekeeping(path: PurePath) -> bool:
    """Whether a file is one that tools write beside the data."""
    return path.name.lower() in HOUSEKEEPING


def split_of(name: PurePath) -> str | None:
    """The split that a file's name, or the nearest folder that names one, says it holds: ``train``, ``other`` or none.

    Words count, not parts of them: ``latest.jsonl`` names no split, ``test-00000-of-00001.parquet`` does.
    """
    for part in reversed(name.parts):
        words = set(_WORDS.findall(part.lower().replace("held_out", "heldout").replace("held-out", "heldout")))
        if words & _TRAIN:
            return "train"
        if words & _OTHER:
            return "other"
    return None


def training_files(names: Sequence[PurePath]) -> tuple[list[PurePath], list[PurePath]]:
    """Part the data files of a folder, by their names below it, into those to train on and those to leave out.

    Files of other splits are left out where there are others; files that name no split train.
    """
    other = [name for name in names if split_of(name) == "other"]
    if len(other) == len(names):
        return list(names), []
    return [name for name in names if split_of(name) != "other"], other
