"""``preflow explain``: the entry of any error, wherever Preflow is installed."""

import pytest
from typer.testing import CliRunner

from flows.commands import app as application
from flows.commands.explain import entry
from preflow.errors import ConfigError

RUNNER = CliRunner()


@pytest.mark.parametrize("given", ["UiError", "uierror", "UiError: MLflow cannot use port 5000 on 127.0.0.1"])
def test_an_entry_is_found_by_its_name_or_by_the_printed_error(given: str) -> None:
    done = RUNNER.invoke(application.make_app(), ["explain", given])
    assert done.exit_code == 0
    for part in ("UiError", "Meaning.", "Usual causes.", "The port is in use", "What to do."):
        assert part in done.output
    assert "TrainingError" not in done.output, "the next entry is another one"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no error is called ConfigErorr: expected ConfigError"):
        entry("ConfigErorr")


def test_the_message_of_an_error_is_a_command_that_explains_it() -> None:
    """As printed: the last words in parentheses."""
    command = str(ConfigError("got 1, expected 2")).rpartition("(")[2].rstrip(")").split()
    assert command[:2] == ["preflow", "explain"]
    assert "The recipe, an option of the command line" in RUNNER.invoke(application.make_app(), command[1:]).output
