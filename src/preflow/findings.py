"""Every finding of data validation: its name, what it means, and what follows from it by default.

A severity is one of ``stop`` (the run stops), ``set_aside`` (its rows are quarantined), ``warn`` and
``off``. ``validation.severity`` of a recipe changes it by name.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["stop", "set_aside", "warn", "off"]
#: What a finding is about: the form of one row, the text of one row, several rows, or the set as a whole.
Scope = Literal["form", "row", "rows", "set"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a row or a set.

    Attributes:
        name: As reports and recipes call it.
        scope: What it is about. Rows with a finding of form cannot be used, so they are quarantined at least.
        severity: What follows by default.
        what: In words, for people.
        setting: The threshold's name in the recipe's ``validation`` section, if it has one.
    """

    name: str
    scope: Scope
    severity: Severity
    what: str
    setting: str | None = None


_ALL = (
    Finding(
        "malformed_line", "form", "set_aside", "the line is no JSON object, or the record has a wrong number of fields"
    ),
    Finding("missing_column", "form", "set_aside", "a required column is absent"),
    Finding("missing_value", "form", "set_aside", "a required column is null"),
    Finding("wrong_type", "form", "set_aside", "a value is neither text nor a list of turns"),
    Finding("bad_encoding", "form", "set_aside", "the text has lone surrogates, which no encoding can write"),
    Finding("bad_role", "form", "set_aside", "a turn's role is not system, user or assistant"),
    Finding(
        "bad_order",
        "form",
        "set_aside",
        "turns do not alternate between user and assistant after an optional system turn",
    ),
    Finding("ends_on_user", "form", "set_aside", "the conversation has no answer of the assistant at its end"),
    Finding("blank_text", "form", "set_aside", "a turn has no visible character"),
    Finding("needs_tools", "form", "set_aside", "the row offers or calls tools, which would not be rendered"),
    Finding(
        "needs_media", "form", "set_aside", "the row has pictures, films or sound, which a text model is not given"
    ),
    Finding("wrong_kind", "form", "set_aside", "the row is a preference pair where a demonstration is wanted"),
    Finding("undesirable_answer", "form", "set_aside", "the row says that its answer is not to be imitated"),
    Finding(
        "single_verdict",
        "form",
        "set_aside",
        "a verdict on one answer, without an answer of the other verdict beside it",
    ),
    Finding("no_preference", "form", "set_aside", "the row compares answers and prefers none: a tie"),
    Finding("written_null", "form", "set_aside", "a text is the name of a null (nan, None, null, N/A)"),
    Finding("turns_as_text", "form", "set_aside", "a text holds a list of turns that cannot be parsed"),
    Finding("control_tokens", "form", "set_aside", "a turn holds tokens of a chat template or headings of other turns"),
    Finding(
        "unfinished_answer", "form", "set_aside", "an answer was cut while it was sampled, so it has no end to learn"
    ),
    Finding("nothing_to_train", "form", "set_aside", "every answer of the row is marked as context (weight: 0)"),
    Finding("text_alone", "form", "set_aside", "the row is one text, without turns"),
    Finding(
        "prompt_differs", "form", "set_aside", "chosen and rejected, or the prompt column, do not share one prompt"
    ),
    Finding(
        "identical_answers",
        "row",
        "set_aside",
        "chosen and rejected are equal up to Unicode form, case and white space",
    ),
    Finding("scores_inverted", "row", "set_aside", "the scores say that the rejected answer is the better one"),
    Finding("scores_tie", "row", "warn", "the scores of chosen and rejected are equal"),
    Finding(
        "control_characters",
        "row",
        "set_aside",
        "the text has control or replacement characters",
    ),
    Finding("mojibake", "row", "set_aside", "the text was once read in a wrong encoding (Ã© where é belongs)"),
    Finding(
        "text_too_long", "row", "set_aside", "a row has more characters than any answer needs", "maximum_characters"
    ),
    Finding(
        "too_similar",
        "row",
        "warn",
        "chosen and rejected are nearly the same text and have the same numbers",
        "too_similar",
    ),
    Finding(
        "no_clear_winner",
        "row",
        "warn",
        "both answers are short and mean much the same: a word or the wording differs",
        "no_clear_winner_words",
    ),
    Finding(
        "same_in_other_words",
        "row",
        "warn",
        "one answer paraphrases the other: their words mean the same, and no number, name or negation differs",
        "same_in_other_words",
    ),
    Finding("repeats_prompt", "row", "warn", "an answer repeats the prompt", "repeats_prompt"),
    Finding("too_many_tokens", "row", "warn", "the row has more tokens than max_seq_length", "max_seq_length"),
    Finding("email_address", "row", "warn", "the text has an e-mail address"),
    Finding("phone_number", "row", "warn", "the text has a phone number"),
    Finding("secret", "row", "warn", "the text has a key, a token or another secret"),
    Finding("duplicate_row", "rows", "set_aside", "the row equals an earlier one"),
    Finding(
        "near_copy",
        "rows",
        "set_aside",
        "every part equals that of an earlier row, up to case, punctuation, spaces and order of words",
        "near_copy",
    ),
    Finding("near_duplicate", "rows", "warn", "the row is nearly the text of an earlier one", "near_duplicate"),
    Finding("contradiction", "rows", "set_aside", "for one prompt, A wins over B here and B over A elsewhere"),
    Finding(
        "preference_cycle",
        "rows",
        "set_aside",
        "for one prompt, the preferences form a cycle (A over B, B over C, C over A)",
    ),
    Finding(
        "wins_everywhere",
        "rows",
        "set_aside",
        "one and the same answer wins against many prompts",
        "wins_everywhere_prompts",
    ),
    Finding("conflicting_completions", "rows", "warn", "one prompt has several different completions"),
    Finding(
        "in_benchmark", "rows", "set_aside", "the prompt is, exactly or nearly, in a benchmark file", "near_prompt"
    ),
    Finding(
        "leaks_into_evaluation", "rows", "set_aside", "the prompt is held out for evaluation, so it must not train"
    ),
    Finding(
        "nearly_leaks_into_evaluation",
        "rows",
        "set_aside",
        "the prompt is nearly one that is held out, so it must not train",
        "near_prompt",
    ),
    Finding("too_few_rows", "set", "stop", "too few usable rows", "minimum_rows"),
    Finding(
        "fewer_rows_than_recommended",
        "set",
        "warn",
        "fewer rows to train on than is the usual advice: training tends to learn accidents of wording",
        "recommended_pairs",
    ),
    Finding(
        "length_bias",
        "set",
        "warn",
        "length alone predicts the label: it is nearly always the longer answer of a pair that is chosen, or rejected",
        "cue_limit",
    ),
    Finding(
        "shallow_cue",
        "set",
        "warn",
        "a feature of form alone (a list, a code block, an exclamation mark) predicts the label",
        "cue_limit",
    ),
    Finding(
        "one_sided_opening",
        "set",
        "warn",
        "many answers of one side open with a phrase that the other side does not use",
        "cue_limit",
    ),
    Finding(
        "scores_all_inverted",
        "set",
        "stop",
        "every score says the opposite of its pair, so chosen and rejected are probably swapped",
    ),
    Finding("few_prompts", "set", "warn", "the rows have few distinct prompts", "distinct_prompts"),
    Finding("dominant_prompt", "set", "warn", "one prompt has a large share of the rows", "dominant_prompt"),
    Finding("dominant_source", "set", "warn", "one source has nearly all of the rows", "dominant_source"),
    Finding("low_diversity", "set", "warn", "many rows are nearly the text of another", "low_diversity"),
)
#: Every finding by name, in the order in which a row's first one is sought.
FINDINGS = {finding.name: finding for finding in _ALL}
#: Thresholds that have another name for demonstrations.
_OF_DEMONSTRATIONS = {"recommended_pairs": "recommended_demonstrations"}
#: Every finding about the form of a single row, by name: such a row cannot be used.
FORM = {finding.name: finding.what for finding in _ALL if finding.scope == "form"}


def setting_of(finding: str, kind: str) -> str | None:
    """The name of a finding's threshold for rows of one kind, if it has one."""
    setting = FINDINGS[finding].setting
    return _OF_DEMONSTRATIONS.get(setting or "", setting) if kind == "demonstrations" else setting
