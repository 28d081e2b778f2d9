"""The harness as it is used, without the harness."""

import contextlib

import pytest
from tqdm import tqdm

from preflow.benchmarks.harness import no_progress_bars


def test_bars_are_silent_for_as_long_as_the_harness_works(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(KeyError), no_progress_bars():
        assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
        raise KeyError
    assert capsys.readouterr().err == ""
    assert list(tqdm(range(3), disable=False)) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
