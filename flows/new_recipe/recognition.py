"""What the files that a user names on the command line hold."""

from collections.abc import Iterable, Mapping
from itertools import islice

from preflow.config.loading import recipe_for_data
from preflow.config.validation import ReadingSettings
from preflow.data.files.jsonl import from_quarantine
from preflow.data.files.raw_rows import DataSource, RawRow
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.joined_rows import FIRST_ROWS
from preflow.data.row_formats.row import Row
from preflow.data.row_formats.table import kinds
from preflow.data.validated import DataKind
from preflow.errors import ConfigError


def sources_of(entry: str) -> tuple[DataSource, ...]:
    """The files of a file, folder or hub data set; a relative path starts at the working folder.

    Raises:
        DataFileError: It is absent or cannot be read.
    """
    recipe = recipe_for_data({"dpo": [entry]})
    return resolve_sources((recipe.dpo and recipe.dpo.dataset) or ())


def kind_of(entry: str) -> DataKind:
    """What a file, folder or hub data set holds; pairs where no row has a known format.

    Raises:
        ConfigError: Its rows can be read as demonstrations and as pairs.
        DataFileError: It is absent or cannot be read.
    """
    seen = recognised_kinds(first_rows(sources_of(entry)), ReadingSettings())
    require_one_kind(entry, seen)
    return next(iter(seen), "preferences")


def require_one_kind(entry: str, seen: Mapping[DataKind, str], others: str = "") -> None:
    """Ask which kind is meant where rows can be read as both, with the first row of each.

    Args:
        entry: What holds the rows.
        seen: Of ``recognised_kinds``.
        others: What else can be given, in words.

    Raises:
        ConfigError: The rows can be read as demonstrations and as pairs.
    """
    if len(seen) > 1:
        raise ConfigError(
            f"the rows of {entry} can be read in two ways: --kind demonstrations ({seen['demonstrations']}), or --kind "
            f"preferences ({seen['preferences']}). Give one of them{others}"
        )


def first_rows(sources: Iterable[DataSource]) -> list[RawRow]:
    """The rows at the beginning of each source that can be parsed.

    Raises:
        DataFileError: A file cannot be read.
    """
    rows = (row for source in sources for row in islice(read_rows(source), FIRST_ROWS))
    return [row for row in map(from_quarantine, rows) if row.malformed is None]


def recognised_kinds(rows: Iterable[RawRow], settings: ReadingSettings) -> dict[DataKind, str]:
    """What rows can be read as, each with the first row that shows it."""
    seen: dict[DataKind, str] = {}
    for raw in rows:
        for kind, form in kinds(Row.of(raw, settings)):
            seen.setdefault(kind, f"{raw.file}:{raw.row} is {form.name}: {form.how}")
    return seen
