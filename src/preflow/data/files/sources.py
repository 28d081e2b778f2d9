"""Reading data files row by row: JSONL, JSON, CSV and Parquet, packed or not, folders of them, hub data sets.

Nothing is judged here. A line that cannot be parsed becomes a row that says so, with its number, because one bad line
among a million is the gate's business; a file that cannot be read at all is an error that names it.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from preflow.config.base import Frozen
from preflow.data.text import printable
from preflow.errors import DataFileError
from preflow.fingerprints.files import file_digest

#: Kinds of file by the end of their name.
KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
#: Packings that text files may have on top.
PACKINGS = {".gz": "gzip", ".zst": "zstd"}
#: ``owner/name``, ``owner/name:split`` or ``owner/name:config:split``.
_HUB_NAME = re.compile(r"(?P<name>[\w][\w.-]*(/[\w.-]+)?)(:(?P<config>[\w.-]+)(?=:))?(:(?P<split>[\w.-]+))?")


class DataSource(Frozen):
    """One file of rows (or one split of a hub data set) and its contents' digest."""

    path: str
    """The file as it is read, or ``owner/name:split@commit`` (``owner/name:config:split@commit``) of a hub data set."""
    digest: str
    """SHA-256 of the file's bytes, or the hub commit and split."""


def resolve_sources(dataset: Sequence[str]) -> tuple[DataSource, ...]:
    """Find the files that a recipe's ``dataset`` names and take their digests.

    Args:
        dataset: Files, folders (every data file below them, by name), or hub names ``owner/name``,
            ``owner/name:split`` or ``owner/name:config:split``; the split is ``train`` where not given.

    Raises:
        DataFileError: An entry is absent, unreadable, of an unknown kind, or a folder without data files.
    """
    return tuple(source for entry in dataset for source in _resolve_entry(entry))


def source_names(sources: Sequence[DataSource]) -> list[str]:
    """A short, unique name for each source, the same wherever the files lie: how findings name them.

    The file's own name; where two files share it, parent folders are put before it until they differ; where the same
    file is given twice, the second is marked.
    """
    parts = [_name_parts(source.path) for source in sources]
    names = []
    for index, own in enumerate(parts):
        others = {tuple(other) for other in parts if other != own}
        depth = 1
        while depth < len(own) and any(other[-depth:] == tuple(own[-depth:]) for other in others):
            depth += 1
        earlier = parts[:index].count(own)
        names.append("/".join(own[-depth:]) + (f" ({earlier + 1})" if earlier else ""))
    return names


def file_kind(path: Path) -> tuple[str, str | None] | None:
    """The kind of a data file and its packing, by its name; none where the name says neither.

    Returns:
        For ``a.jsonl.gz``: ``("jsonl", "gzip")``. Parquet packs its own columns and takes no packing.
    """
    name = path.name.lower()
    for ending, packing in PACKINGS.items():
        if name.endswith(ending):
            kind = KINDS.get(Path(name.removesuffix(ending)).suffix)
            return None if kind in {None, "parquet"} else (str(kind), packing)
    kind = KINDS.get(Path(name).suffix)
    return None if kind is None else (kind, None)


def _name_parts(path: str) -> list[str]:
    if is_hub(path):
        return [path.rpartition("@")[0]]
    return list(Path(path).parts)


def is_hub(path: str) -> bool:
    """Whether a source is a hub data set, whose path is ``owner/name:split@commit``."""
    name, at, commit = path.rpartition("@")
    return bool(at and commit) and not Path(path).is_absolute() and bool(_HUB_NAME.fullmatch(name))


def _resolve_entry(entry: str) -> list[DataSource]:
    path = Path(entry).expanduser()
    # A plain name is never looked for in the working folder: recipes have made their paths absolute.
    looks_local = path.is_absolute() or entry.startswith(".") or file_kind(path) is not None
    if not looks_local and _HUB_NAME.fullmatch(entry):
        return [_hub_source(entry)]
    if path.is_dir():
        return [_file_source(file) for file in _files_of(path)]
    return [_file_source(path)]


def _files_of(folder: Path) -> list[Path]:
    try:
        found = sorted(
            path for path in folder.rglob("*") if path.is_file() and file_kind(path) and not _is_hidden(path, folder)
        )
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not found:
        raise DataFileError(f"folder {folder} holds no data file; expected at least one {_known_endings()}")
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and ``folder``, is one that tools keep for themselves."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _file_source(path: Path) -> DataSource:
    name = printable(str(path))
    if name != str(path):
        raise DataFileError(f"data file {name}: its name is not UTF-8; rename it")
    if file_kind(path) is None and path.exists():
        raise DataFileError(
            f"{path}: '{''.join(path.suffixes) or path.name}' is no known kind of data file; expected a name "
            f"ending in {_known_endings()}. Rename or convert it."
        )
    try:
        return DataSource(path=str(path.resolve()), digest=file_digest(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataFileError:
    reason = error.strerror or str(error)
    hint = ""
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            names = sorted(p.name for p in path.parent.iterdir() if file_kind(p))[:8]
            hint = f"; data files in {path.parent}: {', '.join(names)}" if names else ""
    return DataFileError(f"data file {path} cannot be read: {reason}{hint}")


def _known_endings() -> str:
    return f"{', '.join(KINDS)} (text files also packed: {', '.join(PACKINGS)})"


def _hub_source(entry: str) -> DataSource:
    """Pin a hub data set to its present commit, so that it is read as it was when its digest was taken."""
    import httpx2
    from huggingface_hub import HfApi

    name, config, split = hub_parts(entry)
    try:
        commit = HfApi().dataset_info(name, timeout=30).sha
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise DataFileError(
            f"'{entry}' is no file here, and the hub data set of this name cannot be reached: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}. "
            "Give a path, or check the name and the network."
        ) from error
    part = f"{config}:{split}" if config else split
    return DataSource(path=f"{name}:{part}@{commit}", digest=f"{commit}:{part}")


def hub_parts(entry: str) -> tuple[str, str | None, str]:
    """Name, configuration (none: the data set's only or default one) and split of a hub data set's name."""
    found = _HUB_NAME.fullmatch(entry)
    assert found is not None, f"not a hub name: {entry}"
    return found["name"], found["config"], found["split"] or "train"
