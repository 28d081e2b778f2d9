"""Every format of a data file (the ends of its names, its compression, its first bytes), and names of formats of rows.

A new format is one line here and a reader in ``preflow.data.files.reader``; recipes, folders and messages use this
table. The formats of rows are read by ``preflow.data.row_formats``; a recipe may give one by its name.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, get_args

#: Formats of rows, by what they hold; ``preflow.data.row_formats.table`` says how each is read.
DemonstrationFormat = Literal["conversation", "alpaca", "prompt and answer", "text"]
PreferenceFormat = Literal[
    "preferred output", "chosen and rejected", "rejected response", "two answers and a winner", "ranking"
]
VerdictFormat = Literal["answer with a verdict"]
DEMONSTRATION_FORMATS: tuple[str, ...] = get_args(DemonstrationFormat)
PREFERENCE_FORMATS: tuple[str, ...] = get_args(PreferenceFormat)
VERDICT_FORMATS: tuple[str, ...] = get_args(VerdictFormat)
ROW_FORMATS = (*DEMONSTRATION_FORMATS, *PREFERENCE_FORMATS, *VERDICT_FORMATS)
#: What other tools call a format, and its name here.
OTHER_NAMES = {
    **dict.fromkeys(
        ("sharegpt", "chatml", "openai", "messages", "chat", "conversations", "conversational"), "conversation"
    ),
    **dict.fromkeys(("prompt completion", "instruct", "qa", "question answer", "completion"), "prompt and answer"),
    **dict.fromkeys(
        ("preference", "dpo", "hh", "hh rlhf", "ultrafeedback", "pairs", "pairwise"), "chosen and rejected"
    ),
    **dict.fromkeys(("arena", "comparison"), "two answers and a winner"),
    **dict.fromkeys(("kto", "unpaired preference"), "answer with a verdict"),
    **dict.fromkeys(("swift", "ms swift"), "rejected response"),
}
#: Columns by the names that formats of rows know them by; a recipe may say which column of a file stands for which.
COLUMN_NAMES = (
    *("messages", "prompt", "completion", "instruction", "input", "output", "system", "history", "text"),
    *("chosen", "rejected", "rejected_response", "preferred_output", "non_preferred_output"),
    *("response_a", "response_b", "winner", "model_a", "model_b", "responses", "scores", "ranks", "label"),
    *("score_chosen", "score_rejected", "margin", "reasoning_content", "weight", "finished", "tools", "images"),
    "source",
)

FormatName = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of data files.

    Attributes:
        name: What readers and identities call it.
        suffixes: Ends of the names of such files.
        compressible: Whether such a file may also be compressed as a whole; Parquet and Arrow compress columns.
        magic: The first bytes of every such file, where they are fixed.
    """

    name: FormatName
    suffixes: tuple[str, ...]
    compressible: bool = True
    magic: bytes | None = None


#: Every format, in the order in which messages list them.
FORMATS = (
    Format("jsonl", (".jsonl", ".ndjson")),
    Format("json", (".json",)),
    Format("csv", (".csv",)),
    Format("tsv", (".tsv", ".tab")),
    Format("parquet", (".parquet",), compressible=False, magic=b"PAR1"),
    Format("arrow", (".arrow",), compressible=False),
)
#: Suffixes of compressed files and the name of the compression.
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BY_SUFFIX = {suffix: form for form in FORMATS for suffix in form.suffixes}
#: Ends of the names of data files: such an entry of a recipe is a file, never a hub data set.
DATA_SUFFIXES = (*_BY_SUFFIX, *COMPRESSIONS)


def file_format(path: PurePath) -> tuple[FormatName, str | None] | None:
    """The format of a data file and its compression, by its name; none where the name gives neither.

    Returns:
        For ``a.jsonl.gz``: ``("jsonl", "gzip")``.
    """
    name = path.name.lower()
    for suffix, compression in COMPRESSIONS.items():
        if name.endswith(suffix):
            found = _BY_SUFFIX.get(PurePath(name.removesuffix(suffix)).suffix)
            return (found.name, compression) if found is not None and found.compressible else None
    found = _BY_SUFFIX.get(PurePath(name).suffix)
    return None if found is None else (found.name, None)


def known_suffixes() -> str:
    """The suffixes as messages list them."""
    text = ", ".join(suffix for form in FORMATS for suffix in form.suffixes)
    return f"{text} (text files also compressed: {', '.join(COMPRESSIONS)})"
