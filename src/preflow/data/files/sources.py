"""The files and hub data sets that a recipe's ``dataset`` names, and the digest of what each of them holds."""

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePath

from preflow.config.validation import Dataset, did_you_mean
from preflow.data.files.hub_datasets import is_hub, may_be_hub_name, pin_commit
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.reader import read_rows, require_columns
from preflow.data.files.split_names import (
    is_housekeeping,
    several_training_splits,
    split_files,
    split_label,
    training_files,
)
from preflow.data.text import printable
from preflow.errors import DataFileError
from preflow.fingerprints.files import file_digest, file_stamp
from preflow.foreign_files import require_allowed, require_within, special_kind
from preflow.formats import file_format, known_suffixes

#: The beginning of what git keeps in place of a large file whose contents were not fetched.
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: The line that JSON over several lines begins with, and what its last line begins with; bytes in which that is found.
_CLOSED_BY = {b"[": (b"]", b"}]"), b"{": (b"}",)}
_TAIL = 4096
_BARE_VARIABLE = re.compile(r"\$[A-Za-z_]")


def resolve_sources(dataset: Sequence[str | Dataset]) -> tuple[DataSource, ...]:
    """Find the files that a recipe's ``dataset`` names and take their digests.

    Args:
        dataset: Files, folders (every data file below them, by name), or hub names ``owner/name``,
            ``owner/name:split`` or ``owner/name:config:split``; the split is ``train`` where not given. Each a path,
            or a ``Dataset`` that says more.

    Raises:
        DataFileError: An entry is absent, unreadable, of an unknown format, a folder without data files, or has not the
            split, revision or columns that the recipe names.
    """
    return tuple(source for entry in dataset for source in _sources_of_entry(entry))


def _sources_of_entry(entry: str | Dataset) -> list[DataSource]:
    """The files of an entry, each with how it is read and how many of its rows."""
    if isinstance(entry, str):
        return _resolve_entry(Dataset(path=entry))
    sources = _resolve_entry(entry)
    reading = entry.reading()
    if reading is not None:
        sources = [source.model_copy(update={"reading": reading}) for source in sources]
        require_columns([source for source in sources if not is_hub(source.path)], reading.named_columns())
    return sources if entry.rows is None else _first_rows(sources, entry.rows)


def _first_rows(sources: list[DataSource], rows: int) -> list[DataSource]:
    """The sources that hold the first rows of all of them together, each with its share."""
    found: list[DataSource] = []
    for source in sources:
        share = rows if source is sources[-1] else sum(1 for _ in islice(read_rows(source), rows))
        found.append(source.model_copy(update={"rows": share}))
        rows -= share
        if not rows:
            break
    return found


@contextmanager
def unchanged(sources: Iterable[DataSource]) -> Iterator[None]:
    """A block that reads files, and believes what it read only if they were all the time what their digests say.

    Raises:
        DataFileError: One has changed since its digest was taken, or while it was read.
    """
    files = {Path(source.path): source.digest for source in sources if not is_hub(source.path)}
    stamps = {path: _stamp(path) for path in files}
    yield
    for path, digest in files.items():
        if _stamp(path) != stamps[path] or file_digest(path) != digest:
            raise DataFileError(
                f"data file {path} is not what it was when its digest was taken: it was changed since. Start again "
                "when nothing writes to it"
            )


def _stamp(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError as error:
        raise _cannot_be_read(path, error) from error


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


def _resolve_entry(entry: Dataset) -> list[DataSource]:
    path = Path(entry.path).expanduser()
    # A plain name is never looked for in the working folder: recipes have made their paths absolute.
    looks_local = path.is_absolute() or entry.path.startswith(".") or file_format(path) is not None
    if not looks_local and may_be_hub_name(entry.path):
        path_at_commit, digest = pin_commit(entry.path, entry.split, entry.revision)
        return [DataSource(path=path_at_commit, digest=digest)]
    if path.is_dir():
        if entry.revision is not None:
            _require_checked_out(path, entry.revision)
        found = _files_of(path)
        files, left_out = _to_train_on(path, found) if entry.split is None else _of_split(path, found, entry.split)
        named = tuple(name.as_posix() for name in left_out)
        return [_file_source(path / file).model_copy(update={"left_out": named}) for file in files]
    for name in ("split", "revision"):
        if getattr(entry, name) is not None and path.exists():
            raise DataFileError(
                f"{path} is a file, which has no {name}; remove {name}: {getattr(entry, name)}, or name a folder or a "
                "hub data set"
            )
    return [_file_source(path)]


def _to_train_on(folder: Path, names: list[PurePath]) -> tuple[list[PurePath], list[PurePath]]:
    files, left_out = training_files(names)
    if splits := several_training_splits(files):
        raise DataFileError(
            f"folder {folder} has training splits for different stages: {', '.join(splits)}; name one, for example "
            f"dataset: {{path: {folder}, split: {splits[0]}}}"
        )
    return files, left_out


def _of_split(folder: Path, names: list[PurePath], split: str) -> tuple[list[PurePath], list[PurePath]]:
    files = split_files(names, split)
    if not files:
        known = sorted({split_label(name) for name in names})
        raise DataFileError(f"folder {folder} has no split '{split}': {did_you_mean(split, known)}")
    return files, [name for name in names if name not in files]


def _require_checked_out(folder: Path, revision: str) -> None:
    """Check that a clone has a revision checked out: files of another one cannot be read from a folder."""
    if not (folder / ".git").exists():
        raise DataFileError(
            f"folder {folder} is no git clone, so it has no revision; remove revision: {revision}, or name the hub "
            "data set itself"
        )
    commits = [_commit(folder, name) for name in ("HEAD", revision)]
    if None in commits or commits[0] != commits[1]:
        raise DataFileError(
            f"folder {folder} has not revision {revision} checked out, but {commits[0] or 'no commit'}; check it out "
            f"there: git checkout {revision}"
        )


def _commit(folder: Path, name: str) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except OSError as error:
        raise DataFileError(f"the revision of {folder} cannot be checked: git: {error.strerror or error}") from error
    return done.stdout.strip() or None


def _files_of(folder: Path) -> list[PurePath]:
    """Data files below a folder, by their names below it, in order."""
    try:
        found: list[PurePath] = sorted(
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.is_file() and file_format(path) and not _is_hidden(path, folder) and not is_housekeeping(path)
        )
        for name in found:
            require_within(folder, folder / name)
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
        if (kind := special_kind(path)) is not None:
            raise DataFileError(f"data file {name} is {kind}; give a file or a folder of files")
        with path.open("rb") as stream:
            head = stream.read(len(_LFS_POINTER))
        if head == _LFS_POINTER:
            raise DataFileError(f"{path} is a pointer of Git LFS, not the data itself; fetch it: git lfs pull")
        if file_format(path) == ("jsonl", None) and _is_json(path, head):
            raise DataFileError(f"{path} is one JSON text, not an object per line; rename it to {path.stem}.json")
        place = path.resolve()
        require_allowed(place)
        return DataSource(path=str(place), digest=file_digest(path))
    except OSError as error:
        raise _cannot_be_read(path, error) from error


def _is_json(path: Path, head: bytes) -> bool:
    """Whether a file begins and ends as JSON over several lines does, or is one array of objects in a single line.

    A first line that was cut to its brace, among good ones, is a bad row and no such file.
    """
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = begins.partition(b"\n")[0].strip()
    if first in _CLOSED_BY:
        return _last_line(path).startswith(_CLOSED_BY[first])
    if not begins.startswith(b"[") or not begins[1:].lstrip().startswith(b"{"):
        return False
    with path.open("rb") as stream:
        return sum(1 for _ in islice((line for line in stream if line.strip()), 2)) == 1


def _last_line(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        return stream.read().rstrip().rpartition(b"\n")[2].lstrip()


def _cannot_be_read(path: Path, error: OSError) -> DataFileError:
    reason = error.strerror or str(error)
    hint = ""
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            names = sorted(p.name for p in path.parent.iterdir() if file_format(p))[:8]
            hint = f"; data files in {path.parent}: {', '.join(names)}" if names else ""
        if _BARE_VARIABLE.search(str(path)):
            hint += "; a variable of the environment is written ${NAME}"
    return DataFileError(f"data file {path} cannot be read: {reason}{hint}")
