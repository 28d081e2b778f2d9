"""A set that cannot be trained on stops the run, by name, and leaves its report."""

import json
from pathlib import Path
from typing import Any

import pytest

from preflow.config.validation import ValidationSettings
from preflow.data.files.sources import resolve_sources
from preflow.errors import DataUnfitError
from preflow.specs import ValidateSpec
from tests.unit.expectations.gate_support import gate, pairs, quarantined, shown, spec, write


@pytest.mark.slow
def test_the_same_file_as_training_and_held_out_data_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", pairs(60))
    with pytest.raises(DataUnfitError, match="no row is left to train on"):
        gate(spec(preferences=file, preferences_eval=file), tmp_path / "out")


UNFIT: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "an empty file": ([], {}, "hold no row at all"),
    "a column that no row has": (
        [{"prompt": "a", "chosen": "b"}] * 3,
        {},
        r"missing in every row: no column 'rejected'; got prompt, chosen",
    ),
    "too many rows quarantined": (
        [*pairs(3), *[{"prompt": str(n), "chosen": "", "rejected": "x"} for n in range(4)]],
        {},
        r"4 of 7 rows are quarantined.*blank_text 4 \(p\.jsonl:4, p\.jsonl:5",
    ),
    "too few usable rows": (pairs(9), {"minimum_rows": 10}, "9 usable rows, expected at least 10"),
    "no held-out pair": (pairs(60), {"share": 0.0}, "no pair is held out"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNFIT)
def test_an_unfit_set_stops_and_leaves_its_report(tmp_path: Path, case: str) -> None:
    rows, changes, message = UNFIT[case]
    options = {
        "settings": ValidationSettings(minimum_rows=changes.get("minimum_rows", 1)),
        "dpo_eval_split": changes.get("share", 0.5),
    }
    with pytest.raises(DataUnfitError, match=message):
        gate(spec(options, preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["verdict"] == "unfit"
    assert report["critical"]


@pytest.mark.slow
def test_an_empty_file_does_not_hide_behind_a_full_one(tmp_path: Path) -> None:
    files = [write(tmp_path / "full.jsonl", pairs(100)), write(tmp_path / "empty.jsonl", [])]
    with pytest.raises(DataUnfitError, match=r"preferences: empty\.jsonl holds no row at all"):
        gate(ValidateSpec(preferences=resolve_sources(files), dpo_eval_split=0.5), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[], [{"prompt": "a", "chosen": "", "rejected": "c"}] * 2])
def test_held_out_data_of_which_nothing_is_left_stop_the_run(tmp_path: Path, rows: list[Any]) -> None:
    asked = spec(
        demonstrations=write(tmp_path / "d.jsonl", shown(100)),
        demonstrations_eval=write(
            tmp_path / "e.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
        ),
    )
    with pytest.raises(
        DataUnfitError, match=r"e\.jsonl holds no row|2 rows of sft\.eval_dataset is usable: blank_text 2"
    ):
        gate(asked, tmp_path / "out")


@pytest.mark.slow
def test_scores_that_contradict_pairs_are_findings_and_stop_a_set_where_all_do(tmp_path: Path) -> None:
    rows = [{**row, "score_chosen": 5, "score_rejected": 3} for row in pairs(40)]
    rows[3] |= {"score_chosen": 1}
    rows[4] |= {"score_chosen": 3}
    _, report, _ = gate(spec(preferences=write(tmp_path / "a.jsonl", rows)), tmp_path / "one")
    found = report["preferences"]["findings"]
    assert (found["scores_inverted"]["rows"], found["scores_tie"]["rows"]) == ({"a.jsonl": [4]}, {"a.jsonl": [5]})
    assert quarantined(tmp_path / "one") == {("a.jsonl", 4): "scores_inverted"}
    swapped = [{**row, "score_chosen": 1, "score_rejected": 3} for row in pairs(40)]
    with pytest.raises(DataUnfitError, match=r"scores_all_inverted.*probably swapped"):
        gate(spec(preferences=write(tmp_path / "b.jsonl", swapped)), tmp_path / "all")
