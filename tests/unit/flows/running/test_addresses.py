"""Where people are sent."""

import pytest

from flows.running.addresses import mlflow_address, mlflow_server


def test_a_link_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:s3cret@mlflow:5000/")
    assert mlflow_server() == mlflow_address() == "http://mlflow:5000"


def test_a_browser_may_know_the_server_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("PREFLOW_MLFLOW_UI", "http://127.0.0.1:5050/")
    assert mlflow_address() == "http://127.0.0.1:5050"


def test_a_local_database_is_shown_by_the_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere/mlflow.db")
    assert mlflow_server() is None
    assert mlflow_address() == "http://127.0.0.1:5000"
