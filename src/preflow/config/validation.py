"""How rows are read where more than one way is right, and thresholds of data validation, as recipes give them."""

import difflib
from typing import Literal, Self

from pydantic import Field, model_validator

from preflow.config.base import COSMETIC, Frozen, Names
from preflow.findings import FINDINGS, Severity


class ReadingSettings(Frozen):
    """How rows are read where a file alone does not say it."""

    multi_turn_answers: Literal["first_difference", "all"] = "first_difference"
    """Preference pairs whose chosen and rejected conversations differ in several turns: the first answers that differ
    are compared and later turns left out (``first_difference``), or all later turns are the response (``all``)."""
    desirable_rows: Literal["set_aside", "demonstrations"] = "set_aside"
    """Rows with a verdict on one answer (KTO's ``label``), named as demonstrations: quarantined, or those with a
    favourable verdict train."""
    text_column: Literal["set_aside", "turns"] = "set_aside"
    """Rows with a column ``text`` alone: quarantined, or read as a transcript (``Human:``, ``### Assistant:``, ...)."""


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
    benchmark_files: Names = Field(default=(), json_schema_extra=COSMETIC)
    """Files whose prompts must not train: rows with the same or nearly the same prompt are quarantined."""
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
    def _severities_are_known(self) -> Self:
        for name, severity in self.severity.items():
            if name not in FINDINGS:
                near = difflib.get_close_matches(name, FINDINGS, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(FINDINGS)}"
                raise ValueError(f"severity names '{name}', which is no finding: {hint}")
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
