"""What preference pairs must be."""

import great_expectations as gx

from expectations.suites.custom import below, never
from expectations.suites.running import new_suite
from expectations.suites.shared import of_rows, of_sets
from preflow.config.validation import ValidationSettings


def rows_suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """As for demonstrations; chosen and rejected say different things; verdicts do not contradict each other."""
    flags = (
        "identical_answers", "no_clear_winner", "contradiction", "preference_cycle", "scores_inverted", "scores_tie",
    )  # fmt: skip
    pairs = [
        *(never(finding, settings) for finding in flags),
        *(below(finding, getattr(settings, finding), settings) for finding in ("too_similar", "same_in_other_words")),
        below("wins_everywhere", settings.wins_everywhere_prompts, settings),
    ]
    return new_suite("preferences: rows", settings, [*of_rows(settings), *pairs])


def set_suite(settings: ValidationSettings) -> gx.ExpectationSuite:
    """Enough rows, of enough prompts and kinds; no cue of form that predicts the label."""
    cues = [
        below(finding, settings.cue_limit, settings) for finding in ("length_bias", "shallow_cue", "one_sided_opening")
    ]
    swapped = below("scores_all_inverted", 1.0, settings)
    return new_suite("preferences: set", settings, [*of_sets("preferences", settings), *cues, swapped])
