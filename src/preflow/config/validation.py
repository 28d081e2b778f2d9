"""Data as recipes name them, how rows are read where more than one way is right, and thresholds of data validation."""

import difflib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from preflow.config.base import COSMETIC, Frozen
from preflow.findings import FINDINGS, Severity
from preflow.formats import COLUMN_NAMES, OTHER_NAMES, ROW_FORMATS
from preflow.redaction import as_written, quoted

#: Letters of an unknown name that are compared with those that are known, and how many of these.
_LONGEST, _MOST_NAMES = 80, 200


class RowReading(Frozen):
    """How the rows of one file, folder or hub data set are written, where their columns alone do not say it."""

    format: str = "auto"
    """The format of all rows, by its name in the list of formats; ``auto`` finds it row by row, by the columns."""
    columns: dict[str, str | None] = Field(default_factory=dict)
    """Which column of the file stands for which of ours (``{prompt: question, chosen: best}``); ``meta.question`` is a
    key inside a column. Null for ours means that the file's own column of this name has another meaning and is not
    read."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if isinstance(data.get("format"), str):
            data = {**data, "format": _known_format(data["format"])}
        columns = data.get("columns")
        for name in columns if isinstance(columns, Mapping) else ():
            if name not in COLUMN_NAMES:
                hint = did_you_mean(str(name), COLUMN_NAMES)
                raise ValueError(
                    f"columns has '{quoted(str(name))}', which is no column of ours: {hint} "
                    "(columns is a map from our names to the file's)"
                )
        return data

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        given = self.named_columns()
        twice = next((column for column in given if given.count(column) > 1), None)
        if twice is not None:
            raise ValueError(f"columns gives the column '{twice}' twice: one column has one meaning")
        return self

    def named_columns(self) -> list[str]:
        """The columns of the file that are named."""
        return [column for column in self.columns.values() if column is not None]


class Dataset(RowReading):
    """A file, a folder or a hub data set with what is to be said of it."""

    path: str
    """A data file, a folder of them, or a hub data set (``owner/name``, ``owner/name:split``,
    ``owner/name:config:split``)."""
    split: str | None = None
    """The split of a hub data set, or of a folder whose files or folders are named after splits; ``train`` where not
    given."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; of a folder that is a git clone, what must be checked out."""
    rows: int | None = Field(default=None, ge=1)
    """Only the first so many rows are read."""

    def reading(self) -> RowReading | None:
        """How its rows are written; none where that is found by their columns alone."""
        said = RowReading(format=self.format, columns=self.columns)
        return None if said == RowReading() else said


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a question, or all of them."""
    names = [quoted(each, _LONGEST) for each in islice(known, _MOST_NAMES)]
    near = difflib.get_close_matches(name[:_LONGEST], names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(names)}"


def _known_format(name: str) -> str:
    plain = name.strip().lower().replace("_", " ").replace("-", " ")
    if plain in {"auto", *ROW_FORMATS}:
        return plain
    if plain in OTHER_NAMES:
        raise ValueError(f"format is '{name}', which is called '{OTHER_NAMES[plain]}' here")
    raise ValueError(f"format is '{name}', which is no format of rows: {did_you_mean(plain, ('auto', *ROW_FORMATS))}")


def _datasets(value: Any) -> Any:
    """One entry or a list of them, each a path or a ``Dataset``; a mapping that says nothing but a path is the path."""
    if value is None:
        return None
    entries = [value] if isinstance(value, str | Mapping | Dataset) else value
    return tuple(map(_dataset, entries)) if isinstance(entries, list | tuple) else _dataset(entries)


def _dataset(entry: Any) -> Any:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, Mapping | Dataset):
        got = "nothing" if entry is None else f"{type(entry).__name__} {entry!r}"
        raise ValueError(f"expected a path, a mapping {{path: ...}}, or a list of them, got {got}")  # noqa: TRY004
    if isinstance(entry, Mapping):
        unknown = next((str(key) for key in entry if key not in Dataset.model_fields), None)
        if unknown is not None:
            raise ValueError(f"'{unknown}' is no setting of a data set: {did_you_mean(unknown, Dataset.model_fields)}")
        try:
            entry = Dataset.model_validate(dict(entry))
        except ValidationError as error:
            raise ValueError("; ".join(_problem(found) for found in error.errors())) from None
    return entry.path if entry.model_dump(exclude_defaults=True).keys() == {"path"} else entry


def _problem(found: Any) -> str:
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" + ("" if found["type"] == "missing" else f", got {as_written(found['input'])}")


#: What a recipe names as data: one entry or several.
Datasets = Annotated[
    tuple[str | Dataset, ...],
    BeforeValidator(_datasets, json_schema_input_type=str | Dataset | tuple[str | Dataset, ...]),
]


def path_of(entry: str | Dataset) -> str:
    """The file, folder or hub data set of an entry."""
    return entry if isinstance(entry, str) else entry.path


def require_formats(name: str, entries: Iterable[str | Dataset], formats: Iterable[str]) -> None:
    """Check that the formats that entries give are of the kind that is read there.

    Raises:
        ValueError: One is not; lists those that are.
    """
    known = ("auto", *formats)
    for entry in entries:
        if isinstance(entry, Dataset) and entry.format not in known:
            raise ValueError(f"{name} has format: {entry.format}, expected one of {', '.join(known)}")


class ReadingSettings(Frozen):
    """How rows are read where a file alone does not say it."""

    multi_turn_answers: Literal["first_difference", "all"] = "first_difference"
    """Preference pairs whose chosen and rejected conversations differ in several turns: the first answers that differ
    are compared and later turns left out (``first_difference``), or all later turns are the response (``all``)."""
    desirable_rows: Literal["set_aside", "demonstrations"] = "set_aside"
    """Rows with a verdict on one answer (KTO's ``label``), named as demonstrations: quarantined, or those with a
    favourable verdict train."""


class ValidationSettings(Frozen):
    """Thresholds of data validation. ``preflow.findings`` lists every finding with its severity."""

    severity: dict[str, Severity] = Field(default_factory=dict)
    """Severity by name of finding: ``stop``, ``set_aside`` (quarantine the row), ``warn`` or ``off``."""
    minimum_rows: int = Field(default=1, ge=1)
    """Fewer usable rows than this stop the run. An empty file never passes."""
    recommended_pairs: int = Field(default=500, ge=0)
    """``fewer_rows_than_recommended``: fewest training pairs without a warning; 500 or more are usually advised."""
    recommended_demonstrations: int = Field(default=500, ge=0)
    """The same for SFT examples. The default is that of pairs; 1,000 good ones sufficed for a model of 65B parameters
    (Zhou et al. 2023, arXiv:2305.11206)."""
    maximum_set_aside: float = Field(default=0.5, ge=0.0, le=1.0)
    """Largest share of quarantined rows; a larger one stops the run, as the file is probably the wrong one."""
    maximum_characters: int = Field(default=200_000, ge=1)
    """``text_too_long``: most characters of a row."""
    too_similar: float = Field(default=0.95, gt=0.5, le=1.0)
    """``too_similar``: similarity of chosen and rejected (1 minus the normalised Indel distance of the lower-cased
    texts) from which two answers with the same numbers and negations count as the same."""
    no_clear_winner_words: int = Field(default=12, ge=0)
    """``no_clear_winner``: most words of an answer that counts as short."""
    same_in_other_words: float = Field(default=0.64, gt=0.0, le=1.0)
    """``same_in_other_words``: how much of the meaning of each answer's words must occur in the other, by word vectors
    (English only)."""
    same_in_other_words_up_to: int = Field(default=60, ge=0)
    """``same_in_other_words``: most words of an answer that is judged."""
    repeats_prompt: float = Field(default=0.95, gt=0.5, le=1.0)
    """``repeats_prompt``: similarity of prompt and answer from which the answer repeats the prompt."""
    near_copy: float = Field(default=0.99, gt=0.5, le=1.0)
    """``near_copy``: least similarity of each text of two rows, words sorted and punctuation removed."""
    near_duplicate: float = Field(default=0.93, gt=0.5, le=1.0)
    """``near_duplicate``: the same for rows that are reported as near duplicates and kept."""
    near_prompt: float = Field(default=0.95, gt=0.5, le=1.0)
    """Similarity from which two prompts with the same numbers count as the same, in the checks for leakage and
    benchmark files. Words that differ must be equal up to one letter (or a space); labels such as ``Question:`` are
    ignored."""
    wins_everywhere_prompts: int = Field(default=10, ge=2)
    """``wins_everywhere``: distinct prompts that one answer must win against."""
    wins_everywhere_share: float = Field(default=0.8, gt=0.5, le=1.0)
    """``wins_everywhere``: least share of its comparisons that such an answer must win; a label such as "yes" also
    loses some."""
    cue_limit: float = Field(default=0.75, gt=0.5, le=1.0)
    """``length_bias``, ``shallow_cue``, ``one_sided_opening``: share of pairs that a cue alone predicts, taken at the
    lower end of its 95 % interval (Wilson 1927), from which it warns."""
    distinct_prompts: float = Field(default=0.1, ge=0.0, le=1.0)
    """``few_prompts``: least distinct prompts per row."""
    dominant_prompt: float = Field(default=0.1, gt=0.0, le=1.0)
    """``dominant_prompt``: share of rows with the same prompt from which it warns, in sets of 20 rows or more."""
    dominant_source: float = Field(default=0.95, gt=0.0, le=1.0)
    """``dominant_source``: share of rows with one value of the column ``source`` from which it warns, where there
    are several."""
    low_diversity: float = Field(default=0.3, gt=0.0, le=1.0)
    """``low_diversity``: share of near duplicates among the rows from which it warns."""
    benchmark_files: Datasets = Field(default=(), json_schema_extra=COSMETIC)
    """Data whose prompts must not train: rows with the same or nearly the same prompt are quarantined. Named as
    ``dataset`` is; of ``columns``, ``prompt`` or ``messages`` count."""
    personal_data: bool = False
    """Also detect e-mail addresses, phone numbers and secrets (slow)."""
    phone_region: str = "US"
    """Country whose format is assumed for phone numbers without a country code (ISO 3166, two letters)."""
    whole_examples: bool = False
    """Show full texts in the report instead of excerpts."""
    memory_mb: int = Field(default=1024, ge=16, json_schema_extra=COSMETIC)
    """Memory for rows during data validation, in MiB; larger sets are processed in parts, from disk."""
    workers: int = Field(default=2, ge=1, json_schema_extra=COSMETIC)
    """Most processes that read rows; small files are read by one."""

    @model_validator(mode="after")
    def _benchmarks_have_prompts_alone(self) -> Self:
        require_formats("benchmark_files", self.benchmark_files, ())
        return self

    @model_validator(mode="after")
    def _severities_are_known(self) -> Self:
        for name, severity in self.severity.items():
            if name not in FINDINGS:
                near = difflib.get_close_matches(name[:_LONGEST], FINDINGS, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(FINDINGS)}"
                raise ValueError(f"severity names '{quoted(name)}', which is no finding: {hint}")
            if FINDINGS[name].scope == "form" and severity in {"warn", "off"}:
                raise ValueError(
                    f"severity of '{name}' is '{severity}', but such a row cannot be used: set_aside or stop"
                )
            if FINDINGS[name].scope == "set" and severity == "set_aside":
                raise ValueError(
                    f"severity of '{name}' is 'set_aside', but it is about the set as a whole: stop or warn"
                )
        return self

    def severity_of(self, finding: str) -> Severity:
        """The severity of a finding in this recipe."""
        return self.severity.get(finding, FINDINGS[finding].severity)
