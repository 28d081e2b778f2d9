"""The files and hub data sets that a recipe's ``dataset`` names, and the digest of what each of them holds."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from preflow.config.base import Frozen
from preflow.data.files.hub_datasets import is_hub, may_be_hub_name, pin_commit
from preflow.data.files.split_names import is_housekeeping, training_files
from preflow.data.text import printable
from preflow.errors import DataFileError
from preflow.fingerprints.files import file_digest
from preflow.formats import file_format, known_suffixes


class DataSource(Frozen):
    """One file of rows (or one split of a hub data set) and its contents' digest."""

    path: str
    """The file as it is read, or ``owner/name:split@commit`` (``owner/name:config:split@commit``) of a hub data set."""
    digest: str
    """SHA-256 of the file's bytes, or the hub commit and split."""
    left_out: tuple[str, ...] = ()
    """Files beside it that hold other splits and are not read, by their names below the folder given."""


def resolve_sources(dataset: Sequence[str]) -> tuple[DataSource, ...]:
    """Find the files that a recipe's ``dataset`` names and take their digests.

    Args:
        dataset: Files, folders (every data file below them, by name), or hub names ``owner/name``,
            ``owner/name:split`` or ``owner/name:config:split``; the split is ``train`` where not given.

    Raises:
        DataFileError: An entry is absent, unreadable, of an unknown format, or a folder without data files.
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


def _name_parts(path: str) -> list[str]:
    if is_hub(path):
        return [path.rpartition("@")[0]]
    return list(Path(path).parts)


def _resolve_entry(entry: str) -> list[DataSource]:
    path = Path(entry).expanduser()
    # A plain name is never looked for in the working folder: recipes have made their paths absolute.
    looks_local = path.is_absolute() or entry.startswith(".") or file_format(path) is not None
    if not looks_local and may_be_hub_name(entry):
        path_at_commit, digest = pin_commit(entry)
        return [DataSource(path=path_at_commit, digest=digest)]
    if path.is_dir():
        files, left_out = training_files(_files_of(path))
        named = tuple(name.as_posix() for name in left_out)
        return [_file_source(path / file).model_copy(update={"left_out": named}) for file in files]
    return [_file_source(path)]


def _files_of(folder: Path) -> list[PurePath]:
    """Data files below a folder, by their names below it, in order."""
    try:
        found: list[PurePath] = sorted(
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.is_file() and file_format(path) and not _is_hidden(path, folder) and not is_housekeeping(path)
        )
    except OSError as error:
        raise _cannot_be_read(folder, error) from error
    if not found:
        raise DataFileError(f"folder {folder} holds no data file; expected at least one {known_suffixes()}")
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder between it and ``folder``, is one that tools keep for themselves."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _file_source(path: Path) -> DataSource:
    name = printable(str(path))
    if name != str(path):
        raise DataFileError(f"data file {name}: its name is not UTF-8; rename it")
    if file_format(path) is None and path.exists():
        raise DataFileError(
            f"{path}: '{''.join(path.suffixes) or path.name}' is no known data format; expected a name "
            f"ending in {known_suffixes()}. Rename or convert it."
        )
    try:
        return DataSource(path=str(path.resolve()), digest=file_digest(path))
    except OSError as error:
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: Path, error: OSError) -> DataFileError:
    reason = error.strerror or str(error)
    hint = ""
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            names = sorted(p.name for p in path.parent.iterdir() if file_format(p))[:8]
            hint = f"; data files in {path.parent}: {', '.join(names)}" if names else ""
    return DataFileError(f"data file {path} cannot be read: {reason}{hint}")
