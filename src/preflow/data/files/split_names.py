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
_SAME = (_TRAIN, {"test", "testing", "tests"}, {"eval", "evaluation"}, {"valid", "validation", "val", "dev"})
#: Words by which several training splits of one data set differ (``train_sft``, ``train_prefs``).
_PURPOSES = frozenset({"sft", "gen", "prefs", "pref", "preference", "preferences", "dpo", "rm", "reward", "kto"})
#: The end of a shard's name, and names of files that say nothing of their split.
_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?$")
_PLAIN = re.compile(r"(data|part|file|shard|\d+)", re.IGNORECASE)
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


def several_training_splits(names: Sequence[PurePath]) -> list[str]:
    """The training splits of a folder that are meant for different stages and may hold the same rows; else none."""
    found: dict[frozenset[str], str] = {}
    for name in names:
        label = split_label(name)
        if _words(label) & _TRAIN and (purpose := _words(label) & _PURPOSES):
            found.setdefault(frozenset(purpose), label)
    return sorted(found.values()) if len(found) > 1 else []


def split_files(names: Sequence[PurePath], split: str) -> list[PurePath]:
    """The data files of a folder that hold one split: named by it, in a folder of its name, or by all of its words."""
    exact = [name for name in names if split in {_bare(part) for part in name.parts}]
    wanted = _words(split)
    return exact or [name for name in names if any(wanted <= _words(_bare(part)) for part in name.parts)]


def split_label(name: PurePath) -> str:
    """What a file of a folder calls its split: its name without number and ending, or its folder's."""
    bare = _bare(name.name)
    return _bare(name.parent.name) if _PLAIN.fullmatch(bare) and name.parent.name else bare


def _bare(part: str) -> str:
    """A name without the ends that tell format, compression and shard."""
    return _SHARD.sub("", part.partition(".")[0])


def _words(text: str) -> set[str]:
    """Words of a name, those that mean the same split as one."""
    found = _WORDS.findall(text.lower())
    return {next((min(same) for same in _SAME if word in same), word) for word in found}
