"""Collected reviews are kept with their run."""

from pathlib import Path

import pytest

from tasks.tracking.client import client
from tasks.tracking.review.collected import human_review, human_reviews, log_review
from tests.unit.review.test_record import report

pytestmark = pytest.mark.slow  # a database of MLflow's own is made


def test_a_review_is_found_by_its_run_and_the_other_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = client()
    run = store.create_run(store.create_experiment("mine")).info.run_id
    assert human_review(run) is None
    log_review(run, report(1, reason="3 questions are open"), {})
    log_review(run, report(1), {"human/win_rate": 0.625})
    log_review(run, report(2), {})
    assert [(each.review, each.counts) for each in human_reviews(run)] == [(1, True), (2, True)]
    found = human_review(run, "d" * 64)
    assert found is not None
    assert found.review == 2
    assert human_review(run, "e" * 64) is None
    assert store.get_run(run).data.metrics == {"human/win_rate": 0.625}
