"""Data sets of the Hugging Face hub: their names, the commit that is read, and their rows."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from preflow import hub
from preflow.config.validation import did_you_mean
from preflow.data.files.raw_rows import RawRow
from preflow.errors import DataDownloadError, DataFileError

#: ``owner/name``, ``owner/name:split`` or ``owner/name:config:split``.
_NAME = re.compile(r"(?P<name>[\w][\w.-]*(/[\w.-]+)?)(:(?P<config>[\w.-]+)(?=:))?(:(?P<split>[\w.-]+))?")


def may_be_hub_name(entry: str) -> bool:
    """Whether an entry of a recipe's ``dataset`` has the form of a hub data set's name."""
    return _NAME.fullmatch(entry) is not None


def is_hub(path: str) -> bool:
    """Whether a source is a hub data set, whose path is ``owner/name:split@commit``."""
    name, at, commit = path.rpartition("@")
    return bool(at and commit) and not Path(path).is_absolute() and may_be_hub_name(name)


def hub_parts(entry: str) -> tuple[str, str | None, str]:
    """Name, configuration (none: the data set's only or default one) and split of a hub data set's name."""
    found = _NAME.fullmatch(entry)
    assert found is not None, f"not a hub name: {entry}"
    return found["name"], found["config"], found["split"] or "train"


def pin_commit(entry: str, split: str | None = None, revision: str | None = None) -> tuple[str, str]:
    """Pin a hub data set to a commit, so that it is read as it was when its digest was taken.

    Args:
        entry: Its name, with or without configuration and split.
        split: The split, where the name gives none.
        revision: Commit, tag or branch; the present state where not given.

    Returns:
        The path ``owner/name:split@commit``, and a digest of commit and split.

    Raises:
        DataFileError: The hub has no such data set or revision, or cannot be reached.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if split is not None and ":" in entry:
        raise DataFileError(f"'{entry}' names a split and split is '{split}': give it once")
    name, config, named = hub_parts(entry)
    split = split or named
    try:
        commit = HfApi().dataset_info(name, revision=revision, timeout=30).sha
    except RevisionNotFoundError as error:
        raise DataFileError(
            f"hub data set '{name}' has no revision '{revision}': expected a commit, tag or branch"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataFileError(
            f"'{entry}' is no file here, and the hub has no data set of this name that you may see. Give a path, check "
            "the name, or set HF_TOKEN for a private one."
        ) from error
    except (OSError, ValueError, httpx2.HTTPError) as error:
        wanted = entry if revision is None else f"{entry} at {revision}"
        raise DataFileError(
            f"'{wanted}' is no file here, and the hub data set of this name cannot be reached: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}. "
            "Give a path, or check the name and the network."
        ) from error
    part = f"{config}:{split}" if config else split
    return f"{name}:{part}@{commit}", f"{commit}:{part}"


def read_hub(path: str, name: str, columns: Sequence[str] = ()) -> Iterator[RawRow]:
    """The rows of a hub data set at its pinned commit.

    Args:
        path: ``owner/name:split@commit``.
        name: What to call it in findings.
        columns: Columns that the recipe names.

    Raises:
        DataDownloadError: The hub did not answer; another try may succeed.
        DataFileError: The data set cannot be read, or has not one of the columns.
    """
    import httpx2
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    entry, _, commit = path.rpartition("@")
    dataset, config, split = hub_parts(entry)
    try:
        rows = load_dataset(dataset, config, split=split, revision=commit)
    except (OSError, ValueError, httpx2.HTTPError, DatasetsError) as error:
        kind = DataDownloadError if hub.may_pass(error) else DataFileError
        raise kind(f"hub data set '{entry}' cannot be read: {error}") from error
    for column in columns:
        if column not in rows.column_names and column.partition(".")[0] not in rows.column_names:
            hint = did_you_mean(column, rows.column_names)
            raise DataFileError(f"hub data set '{entry}' has no column '{column}': {hint}")
    for number, values in enumerate(rows, 1):
        yield RawRow(name, number, dict(values))
