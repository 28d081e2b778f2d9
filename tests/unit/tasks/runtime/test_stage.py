"""When trying a stage again can help."""

from types import SimpleNamespace

import httpx
import pytest

from preflow.errors import (
    ConfigError,
    DataDownloadError,
    DataFileError,
    ForgottenSftError,
    KilledRankError,
    ModelDownloadError,
    ModelNotFoundError,
    TrainingError,
)
from tasks.runtime.stage import can_help


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (OSError(28, "no space left"), True),
        (httpx.ConnectError("refused"), True),
        (ModelDownloadError("the index did not answer"), True),
        (DataDownloadError("the hub did not answer"), True),
        (KilledRankError("a rank was killed"), True),
        (TrainingError("a rank failed"), False),
        (ModelNotFoundError("no such model"), False),
        (ConfigError("beta"), False),
        (DataFileError("line 3"), False),
        (ForgottenSftError("lost"), False),
        (TimeoutError("too long"), False),
        (ZeroDivisionError("a mistake of ours"), False),
    ],
)
def test_trouble_from_outside_is_tried_again_and_nothing_else(error: Exception, helps: bool) -> None:
    assert can_help(SimpleNamespace(name="sft"), None, SimpleNamespace(data=error)) is helps


def test_a_stage_that_is_tried_again_says_why(caplog: pytest.LogCaptureFixture) -> None:
    failed = SimpleNamespace(data=OSError(28, "No space left on device", "/data/home"))
    with caplog.at_level("WARNING", "preflow"):
        can_help(SimpleNamespace(name="sft"), None, failed)
    assert "sft: [Errno 28] No space left on device: '/data/home'; it is tried again in a moment" in caplog.text
