"""A run's measurements are read from the files that its stages wrote."""

from pathlib import Path

import pytest

from preflow.artifacts import Artifact, write_json
from preflow.data.rows import Pair, Source
from preflow.data.validated import write_rows
from preflow.diagnosis.reading import measurements
from tests.unit.diagnosis.runs import log, recipe
from tests.unit.support import turns


def artifact(folder: Path) -> Artifact:
    folder.mkdir()
    return Artifact(path=str(folder), digest="d", bytes=0)


def test_log_probs_cues_curves_and_memory_come_together(tmp_path: Path) -> None:
    names = ("data", "evaluation", "dpo", "tune", "judge")
    data, evaluation, dpo, tune, judge = (artifact(tmp_path / name) for name in names)
    texts = [("Sure!", "No."), ("It is 5 p.m.", "Sorry, no idea."), ("Yes.", "- one\n- two")]
    rows = []
    for number, answers in enumerate(texts, start=1):
        prompt, chosen, rejected = turns(f"Question {number}?", *answers)
        rows.append(Pair(prompt, chosen, rejected, Source("p.jsonl", number)))
    write_rows(data.file("preferences.eval.jsonl"), rows)
    write_json(data.file("report.json"), {"preferences": {"rows_in": 9, "findings": {}}, "demonstrations": None})
    write_json(evaluation.file("evaluation.json"), {"models": {"base": {}, "dpo": {}}, "reference": "base"})
    scored = {"chosen_logprob_base": -4.0, "rejected_logprob_base": -5.0, "chosen_logprob_dpo": -3.5}
    pairs = [
        {"source": f"p.jsonl:{i}", "chosen_tokens": 2, "rejected_tokens": 4, **scored, "rejected_logprob_dpo": -5.0 - i}
        for i in (3, 1)
    ]
    write_json(evaluation.file("pairs.json"), pairs)
    write_json(dpo.file("metrics.json"), {"dpo/steps": 90.0})
    write_json(dpo.file("training.json"), log())
    write_json(tune.file("metrics.json"), {"tune/learning_rate": 1e-4})
    write_json(tune.file("choice.json"), {"learning_rate": 1e-4})
    trained = {"sft": None, "dpo": dpo, "tune": tune}
    write_json(judge.file("judge.json"), {"win_rate": {"value": 0.4, "low": 0.3, "high": 0.5}})
    found = measurements(recipe(), data, evaluation, trained, {"dpo/work_seconds": 60.0}, judge)
    assert found.judge["win_rate"]["low"] == 0.3
    assert found.pairs is not None
    assert found.pairs.sources == ("p.jsonl:3", "p.jsonl:1")
    assert found.pairs.margins().tolist() == pytest.approx([0.5 + 3, 0.5 + 1])
    assert found.pairs.per_token("base").tolist() == pytest.approx([-2 + 5 / 4] * 2)
    assert found.pairs.cues["a list"].tolist() == [-1, 0]
    assert found.pairs.cues["an exclamation mark"].tolist() == [0, 1]
    assert found.pairs.cues["a digit"].tolist() == [0, 0]
    assert found.metrics == {"dpo/steps": 90.0, "tune/learning_rate": 1e-4, "dpo/work_seconds": 60.0}
    assert found.choice == {"learning_rate": 1e-4}
    assert len(found.curve("loss")[0]) == 90


def test_a_run_of_fine_tuning_alone_has_no_pairs(tmp_path: Path) -> None:
    data, evaluation, sft = (artifact(tmp_path / name) for name in ("data", "evaluation", "sft"))
    write_json(data.file("report.json"), {"preferences": None})
    write_json(evaluation.file("evaluation.json"), {"models": {"base": {}, "sft": {}}})
    write_json(sft.file("metrics.json"), {"sft/loss": 2.0})
    write_json(sft.file("training.json"), [{"step": 1, "loss": 2.0}])
    found = measurements(recipe(), data, evaluation, {"sft": sft, "dpo": None, "tune": None}, {})
    assert (found.pairs, list(found.log), found.data) == (None, [], {})
    assert found.sft_log == [{"step": 1, "loss": 2.0}]
