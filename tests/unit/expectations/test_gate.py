"""Bad rows are quarantined by name; an unfit set stops the run; the others are split, alike wherever the files are."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expectations.report.summary import finding_rows, remedies, summary
from expectations.suites.running import SuiteResult
from preflow.config.validation import ValidationSettings
from preflow.data.validated import Split, load_demonstrations, load_pairs, selection_split
from preflow.errors import DataFileError
from tests.unit.data.prompt_hashes import row_hash
from tests.unit.expectations.gate_support import ALL_OPEN_ALIKE, gate, pairs, quarantined, shown, spec, write


@pytest.mark.slow
def test_clean_rows_all_come_out_on_one_side_each(tmp_path: Path) -> None:
    asked = spec(
        demonstrations=write(tmp_path / "d.jsonl", shown(80)), preferences=write(tmp_path / "p.jsonl", pairs(100))
    )
    artifact, report, _ = gate(asked, tmp_path / "out")
    train, held = load_pairs(artifact, "train"), load_pairs(artifact, "eval")
    assert sorted(row.source.row for row in [*train, *held]) == list(range(1, 101))
    assert held
    assert report["verdict"] == "fit"
    trained = {row_hash(row) for row in train} | {row_hash(row) for row in load_demonstrations(artifact, "train")}
    measured = {row_hash(row) for row in held} | {row_hash(row) for row in load_demonstrations(artifact, "eval")}
    assert not trained & measured
    metrics = artifact.load("metrics.json")
    assert metrics["data/pairs_in"] == metrics["data/pairs_used"] == 100.0
    assert metrics["data/demonstrations_train"] + metrics["data/demonstrations_eval"] == 80.0
    assert all(isinstance(value, float) for value in metrics.values())


@pytest.mark.slow
def test_validation_rows_have_a_file_of_their_own_and_are_said(tmp_path: Path) -> None:
    files = {"preferences": write(tmp_path / "p.jsonl", pairs(100))}
    plain, before, _ = gate(spec({}, **files), tmp_path / "plain")
    artifact, report, _ = gate(spec({"dpo_validation_split": 0.2}, **files), tmp_path / "out")
    splits: tuple[Split, ...] = ("train", "validation", "eval")
    train, choosing, test = (load_pairs(artifact, split) for split in splits)
    assert test == load_pairs(plain, "eval")
    without = [row.source.row for row in load_pairs(plain, "train")]
    assert sorted(row.source.row for row in [*train, *choosing]) == without
    assert choosing
    found = report["preferences"]
    assert (found["train"], found["validation"], found["eval"]) == (len(train), len(choosing), len(test))
    assert found["used"] == 100
    assert f"{len(choosing)} for validation, {len(test)} held out" in summary("preferences", found)
    assert "for validation" in artifact.file("report.html").read_text()
    assert artifact.load("metrics.json")["data/pairs_validation"] == len(choosing)
    assert (selection_split(artifact, "preferences"), selection_split(plain, "preferences")) == ("validation", "eval")
    assert "validation" not in before["preferences"]


def test_every_defect_is_named_by_file_and_row(tmp_path: Path) -> None:
    rows: list[Any] = pairs(60)
    defects: dict[int, tuple[Any, str]] = {
        4: ('{"prompt": "x", ', "malformed_line"),
        8: ({"prompt": "x", "chosen": "y"}, "missing_column"),
        15: ({"prompt": "x", "chosen": True, "rejected": "y"}, "wrong_type"),
        16: ({"prompt": "x", "chosen": " ", "rejected": "y"}, "blank_text"),
        23: ({"prompt": "x", "chosen": "Fine  DAY", "rejected": "\ufb01ne day "}, "identical_answers"),
        42: (rows[0], "duplicate_row"),
    }
    for number, (row, _) in defects.items():
        rows[number - 1] = row
    out = tmp_path / "out"
    _, report, notes = gate(spec({"settings": ALL_OPEN_ALIKE}, preferences=write(tmp_path / "p.jsonl", rows)), out)
    assert quarantined(out) == {("p.jsonl", number): finding for number, (_, finding) in defects.items()}
    found = report["preferences"]["findings"]
    assert {name: entry["rows"] for name, entry in found.items()} == {
        finding: {"p.jsonl": [number]} for number, (_, finding) in defects.items()
    }
    assert report["preferences"]["rows_in"] == 60 == report["preferences"]["used"] + 6
    assert "blank_text 1 (p.jsonl:16)" in notes[0]


@pytest.mark.slow
def test_of_duplicates_the_first_stays_even_in_another_form(tmp_path: Path) -> None:
    turn = [{"role": "user", "content": "Question 3?"}]
    again = {"prompt": turn, "chosen": "Kind 3.", "rejected": "Rude 3.", "id": 77}
    out = tmp_path / "out"
    gate(spec(preferences=write(tmp_path / "p.jsonl", [*pairs(60), again, again])), out)
    assert quarantined(out) == {("p.jsonl", 61): "duplicate_row", ("p.jsonl", 62): "duplicate_row"}


@pytest.mark.slow
def test_a_pair_with_the_sides_exchanged_is_a_contradiction_and_no_duplicate(tmp_path: Path) -> None:
    other = {"prompt": "Question 3?", "chosen": "Rude 3.", "rejected": "Kind 3."}
    out = tmp_path / "out"
    gate(spec(preferences=write(tmp_path / "p.jsonl", [*pairs(60), other])), out)
    assert quarantined(out) == dict.fromkeys([("p.jsonl", 4), ("p.jsonl", 61)], "contradiction")


@pytest.mark.slow
def test_a_prompt_of_the_named_held_out_pairs_leaves_training_of_both_kinds(tmp_path: Path) -> None:
    asked = spec(
        demonstrations=write(tmp_path / "d.jsonl", shown(60)),
        preferences=write(tmp_path / "p.jsonl", pairs(60)),
        preferences_eval=write(tmp_path / "e.jsonl", pairs(2, start=10) + pairs(1, start=900)),
        options={"sft_eval_split": 0.0},
    )
    out = tmp_path / "out"
    artifact, report, _ = gate(asked, out)
    leaks = {(file, row) for file in ("d.jsonl", "p.jsonl") for row in (11, 12)}
    assert quarantined(out) == dict.fromkeys(leaks, "leaks_into_evaluation")
    assert [row.source.file for row in load_pairs(artifact, "eval")] == ["e.jsonl"] * 3
    assert report["demonstrations"]["train"] == 58
    warnings = remedies(report)
    assert any("only 3 pairs are held out" in line for line in warnings)
    assert any("no demonstration is held out" in line for line in warnings)


@pytest.mark.slow
def test_a_system_column_reaches_the_model_and_tools_are_quarantined(tmp_path: Path) -> None:
    rows = [*pairs(60), {**pairs(1, 60)[0], "system": "Be kind."}, {**pairs(1, 61)[0], "tools": "[{}]"}]
    artifact, report, _ = gate(
        spec({"dpo_eval_split": 0.5}, preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out"
    )
    used = load_pairs(artifact, "train") + load_pairs(artifact, "eval")
    assert [pair.prompt[0].content for pair in used if pair.prompt[0].role == "system"] == ["Be kind."]
    assert quarantined(tmp_path / "out") == {("p.jsonl", 62): "needs_tools"}
    assert report["preferences"]["files"] == {"p.jsonl": {"part": "train", "rows_in": 62, "used": 61}}


def test_a_suite_that_lets_unusable_rows_pass_is_an_error_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expectations.gate.run_suite", lambda frames, suite: SuiteResult())
    rows = [*pairs(60), {"prompt": "x", "chosen": "", "rejected": "y"}, {"prompt": "x"}, "["]
    with pytest.raises(RuntimeError, match=r"the suite of preferences let 3 rows pass"):
        gate(spec(preferences=write(tmp_path / "p.jsonl", rows)), tmp_path / "out")


def test_a_broken_file_stops_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"prompt": ')
    with pytest.raises(DataFileError, match=r"p\.json is not valid JSON"):
        gate(spec(preferences=str(tmp_path / "p.json")), tmp_path / "out")


@pytest.mark.slow
def test_demonstrations_alone_need_no_held_out_rows(tmp_path: Path) -> None:
    asked = spec({"sft_eval_split": 0.0}, demonstrations=write(tmp_path / "d.jsonl", shown(3)))
    artifact, report, _ = gate(asked, tmp_path / "out")
    assert load_pairs(artifact, "train") == load_pairs(artifact, "eval") == []
    assert "preferences" not in report
    assert not (tmp_path / "out" / "gx_preferences.json").exists()


@pytest.mark.slow
def test_fewer_pairs_than_recommended_are_reported_with_the_setting(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", pairs(60))
    _, report, _ = gate(spec(preferences=file), tmp_path / "a")
    (line,) = (line for line in remedies(report) if "recommended" in line)
    assert f"rows to train on {report['preferences']['train']} (validation.recommended_pairs: 500)" in line
    assert report["preferences"]["findings"]["fewer_rows_than_recommended"]["severity"] == "warn"
    options = {"settings": ValidationSettings(recommended_pairs=10)}
    _, report, _ = gate(spec(options, preferences=file), tmp_path / "b")
    assert not any("recommended" in line for line in remedies(report))


@pytest.mark.slow
def test_fewer_demonstrations_than_recommended_are_reported_with_a_setting_of_their_own(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", shown(60))
    for least, expected in ((61, True), (10, False)):
        options = {"settings": ValidationSettings(recommended_demonstrations=least)}
        _, report, _ = gate(spec(options, demonstrations=file), tmp_path / f"out-{least}")
        entry = report["demonstrations"]["findings"].get("fewer_rows_than_recommended")
        assert (entry is not None) is expected
        if entry:
            assert (entry["setting"], entry["threshold"]) == ("recommended_demonstrations", least)


@pytest.mark.slow
def test_the_folder_is_the_same_bytes_wherever_the_files_lie(tmp_path: Path) -> None:
    rows: list[Any] = [*pairs(60), "{", pairs(1)[0]]
    contents = []
    for place in ("here", "there/below"):
        gate(spec(preferences=write(tmp_path / place / "p.jsonl", rows)), tmp_path / f"out-{place[:4]}")
        files = sorted((tmp_path / f"out-{place[:4]}").iterdir())
        contents.append({file.name: file.read_bytes() for file in files})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


@pytest.mark.slow
def test_data_validation_loads_no_model_library(tmp_path: Path) -> None:
    code = "import sys, expectations.gate; print([m for m in ('torch', 'transformers', 'prefect') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]", "a run that the data stop should stop before these are loaded"


VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=3),
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": st.text(max_size=2)}
        ),
        max_size=3,
    ),
)
ROW = st.one_of(
    st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "messages"]), VALUE),
    st.fixed_dictionaries({"prompt": VALUE, "chosen": VALUE, "rejected": VALUE}),
    st.text(alphabet='{}[]":a1\\,', max_size=8).filter(lambda text: text.strip()),
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=12))
def test_whatever_the_rows_are_each_is_used_or_named(tmp_path: Path, rows: list[Any]) -> None:
    lenient = ValidationSettings(maximum_set_aside=1.0)
    out = tmp_path / "out"
    asked = spec({"settings": lenient}, preferences=write(tmp_path / "p.jsonl", [*pairs(60), *rows]))
    artifact, report, _ = gate(asked, out)
    used = [row.source.row for row in [*load_pairs(artifact, "train"), *load_pairs(artifact, "eval")]]
    aside = [row for _, row in quarantined(out)]
    assert sorted([*used, *aside]) == list(range(1, 61 + len(rows)))
    assert report["preferences"]["rows_in"] == 60 + len(rows)


@pytest.mark.slow
def test_the_findings_of_a_report_are_a_table_with_the_worst_first(tmp_path: Path) -> None:
    rows: list[Any] = [
        *pairs(60),
        {"prompt": "x", "chosen": "It was beautiful.", "rejected": "It was pretty."},
        pairs(1)[0],
    ]
    asked = spec({"settings": ALL_OPEN_ALIKE}, preferences=write(tmp_path / "p.jsonl", rows))
    table = finding_rows(gate(asked, tmp_path / "out")[1])
    assert [(line["finding"], line["severity"], line["first"]) for line in table] == [
        ("duplicate_row", "set_aside", "p.jsonl:62"),
        ("no_clear_winner", "warn", "p.jsonl:61"),
    ]


@pytest.mark.slow
def test_rows_with_verdicts_are_pairs_where_a_prompt_has_both_and_a_ranking_is_several(tmp_path: Path) -> None:
    """Thirty prompts with both verdicts and one with one of them; a ranking of three gives three pairs."""
    both = [
        {"prompt": f"Question {n}?", "completion": f"{word} {n}.", "label": good}
        for n in range(30)
        for word, good in (("Kind", True), ("Rude", False))
    ]
    rows = [*both, {"prompt": "Alone?", "completion": "Yes.", "label": True}]
    _, report, _ = gate(spec(preferences=write(tmp_path / "kto.jsonl", rows)), tmp_path / "kto")
    assert (report["preferences"]["rows_in"], report["preferences"]["used"]) == (31, 30)
    assert quarantined(tmp_path / "kto") == {("kto.jsonl", 61): "single_verdict"}
    ranked = [
        {"prompt": f"Q {n}?", "responses": [f"a {n}", f"b {n}", f"c {n}"], "scores": [1, 3, 2]} for n in range(20)
    ]
    _, report, _ = gate(spec(preferences=write(tmp_path / "r.jsonl", ranked)), tmp_path / "ranked")
    assert report["preferences"]["rows_in"] == 60
