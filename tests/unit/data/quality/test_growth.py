"""No function of data validation that takes text takes time of more than about the text's length.

Growth is measured, not time: the exponent of the CPU time over three doublings, where a square has 2. What disturbs
makes a call slower, so the best of several counts and a large exponent is measured again.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.parts.growth import INPUTS, LIMIT, growth, text_functions

FUNCTIONS = text_functions()
#: Functions that are measured together, so that each test takes some seconds.
GROUPS = 16


def test_the_functions_are_found_by_walking_the_modules() -> None:
    for name in (
        "preflow.data.text.fold",
        "preflow.data.quality.wording.typos.unwrap",
        "preflow.data.quality.sets.similarity.text_similarity",
        "preflow.data.quality.rows.prompt_echo.repeats (one text)",
        "preflow.data.row_formats.texts.clean",
        "preflow.data.files.jsonl.jsonl_row",
        "expectations.report.counts._cut",
    ):
        assert name in FUNCTIONS
    assert len(FUNCTIONS) > 200


def test_a_square_is_seen_and_a_line_is_none() -> None:
    def seconds(steps: int) -> float:
        return steps * 1e-6

    assert growth(lambda text: seconds(len(text) ** 2), INPUTS["digits"]) == pytest.approx(2)
    assert growth(lambda text: seconds(len(text)), INPUTS["digits"]) == pytest.approx(1)
    assert growth(lambda text: 1e-9, INPUTS["digits"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_time_grows_as_the_text_does(group: int) -> None:
    found = {
        (name, kind): exponent
        for name in sorted(FUNCTIONS)[group::GROUPS]
        for kind, make in INPUTS.items()
        if (exponent := growth(FUNCTIONS[name], make)) is not None
    }
    assert {place: exponent for place, exponent in found.items() if exponent > LIMIT} == {}


PIECES = st.text(
    st.sampled_from(" \n\t#*:.,'\"[]{}()<>|/\\@=+-_aAeEyJ01\u0301\u200b\u4e2d\u00c3\u00a9"), min_size=1, max_size=6
)
ENDS = st.sampled_from(["", "question", "answer:", "step", "x", ".", "]", '"', " @", "</s>", "\n"])


@pytest.mark.nightly
@given(begin=ENDS, piece=PIECES, end=ENDS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_time_grows_as_the_text_does_whatever_is_repeated_in_it(begin: str, piece: str, end: str) -> None:
    def make(length: int) -> str:
        return begin + piece * (length // len(piece)) + end

    found = {name: growth(call, make) for name, call in FUNCTIONS.items()}
    assert {name: exponent for name, exponent in found.items() if exponent is not None and exponent > LIMIT} == {}
