"""Runs that have ended, sought where there are none."""

import pytest

from preflow.errors import ConfigError
from tasks.tracking import past_runs


class Empty:
    """An MLflow that holds nothing."""

    def get_experiment_by_name(self, name: str) -> None:
        """No experiment has this name."""


def test_a_recipe_that_never_ran_is_refused_without_showing_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(past_runs, "client", Empty)
        patch.setenv("MLFLOW_TRACKING_URI", "https://team:s3cret@mlflow.example:5000")
        with pytest.raises(ConfigError, match=r"MLflow at https://mlflow\.example:5000 has no finished run of"):
            past_runs.past_run("mine")
