"""What the suites of both kinds share: the form and text of a row, copies of it, the split, and the set as a whole."""

import great_expectations as gx
from great_expectations.expectations.expectation import Expectation

from expectations.suites.custom import at_least, below, never, no_problem
from expectations.suites.running import new_suite
from preflow.config.validation import ValidationSettings
from preflow.data.validated import DataKind
from preflow.findings import FORM, setting_of


def of_rows(settings: ValidationSettings) -> list[Expectation]:
    """Of single rows, and of rows among others."""
    flags = ("control_characters", "mojibake", "repeats_prompt", "duplicate_row", "in_benchmark")
    personal = ("email_address", "phone_number", "secret") if settings.personal_data else ()
    return [
        *(no_problem(finding, settings) for finding in FORM),
        *(never(finding, settings) for finding in (*flags, *personal)),
        below("text_too_long", settings.maximum_characters, settings, reached=False),
        below("near_copy", settings.near_copy, settings),
        below("near_duplicate", settings.near_duplicate, settings),
    ]


def split_suite(name: str, settings: ValidationSettings) -> gx.ExpectationSuite:
    """No prompt on both parts, exactly or nearly."""
    leaks = [never(finding, settings) for finding in ("leaks_into_evaluation", "nearly_leaks_into_evaluation")]
    return new_suite(f"{name}: split", settings, leaks)


def lengths_suite(name: str, limit: int, settings: ValidationSettings) -> gx.ExpectationSuite:
    """No row has more tokens than the model is trained on."""
    return new_suite(f"{name}: lengths", settings, [below("too_many_tokens", limit, settings, reached=False)])


def of_sets(kind: DataKind, settings: ValidationSettings) -> list[Expectation]:
    """Of all usable rows together; the frame has one row."""
    few = "fewer_rows_than_recommended"
    recommended = getattr(settings, setting_of(few, kind) or "")
    return [
        at_least("too_few_rows", settings.minimum_rows, settings),
        at_least(few, recommended, settings, kind),
        at_least("few_prompts", settings.distinct_prompts, settings),
        below("dominant_prompt", settings.dominant_prompt, settings),
        below("dominant_source", settings.dominant_source, settings),
        below("low_diversity", settings.low_diversity, settings),
    ]
