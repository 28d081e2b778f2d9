"""Data as recipes name them: a path, or a mapping that says more; what is unknown in it is one clear error."""

from pathlib import Path
from typing import Any

import pytest

from preflow.config.loading import load_recipe
from preflow.config.validation import Dataset
from preflow.errors import ConfigError
from preflow.formats import COLUMN_NAMES


def load(folder: Path, dataset: str, overrides: dict[str, Any] | None = None) -> Any:
    (folder / "r.yaml").write_text(f"strategy: dpo\nmodel_name: m\ndataset: {dataset}\n")
    recipe = load_recipe(folder / "r.yaml", overrides)
    assert recipe.dpo is not None
    return recipe.dpo.dataset


def test_a_mapping_that_says_nothing_but_a_path_is_the_path(tmp_path: Path) -> None:
    path = str(tmp_path / "p.jsonl")
    for text in ("p.jsonl", "[p.jsonl]", "{path: p.jsonl}", "[{path: p.jsonl, format: auto, columns: {}}]"):
        assert load(tmp_path, text) == (path,)


def test_a_mapping_says_what_is_read_and_how(tmp_path: Path) -> None:
    text = "[a.csv, {path: p.jsonl, format: Chosen_and_rejected, columns: {prompt: q, messages: null}, rows: 9}]"
    first, second = load(tmp_path, text)
    assert first == str(tmp_path / "a.csv")
    assert second == Dataset(
        path=str(tmp_path / "p.jsonl"), format="chosen and rejected", columns={"prompt": "q", "messages": None}, rows=9
    )


def test_an_override_says_more_about_a_path(tmp_path: Path) -> None:
    path = str(tmp_path / "p.jsonl")
    for name in ("dataset.rows", "dpo.dataset.rows"):
        given = "p.jsonl" if name == "dataset.rows" else "p.jsonl\ndpo: {dataset: p.jsonl}"
        assert load(tmp_path, given, {name: "7"}) == (Dataset(path=path, rows=7),)
    with pytest.raises(ConfigError, match="2 data sets; give the whole list"):
        load(tmp_path, "[p.jsonl, q.jsonl]", {"dataset.rows": "7"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[[a.jsonl]]", "expected a path, a mapping {path: ...}, or a list of them, got list"),
        ("5", "expected a path, a mapping {path: ...}, or a list of them, got int 5"),
        ("[a.jsonl, null]", "expected a path, a mapping {path: ...}, or a list of them, got nothing"),
        ("{path: p.jsonl, colums: {}}", "'colums' is no setting of a data set: did you mean 'columns'"),
        ("{path: p.jsonl, format: alpacca}", "format is 'alpacca', which is no format of rows: did you mean 'alpaca'"),
        ("{path: p.jsonl, format: sharegpt}", "format is 'sharegpt', which is called 'conversation' here"),
        ("{path: p.jsonl, format: alpaca}", "dataset has format: alpaca, expected one of auto, preferred output"),
        ("{path: p.jsonl, columns: {chosn: best}}", "columns has 'chosn', .*: did you mean 'chosen'"),
        ("{path: p.jsonl, columns: {prompt: a, chosen: a}}", "columns gives the column 'a' twice"),
        ("{path: p.jsonl, rows: 0}", "rows: Input should be greater than or equal to 1, got 0"),
        ("{format: auto}", "path: Field required"),
    ],
)
def test_what_is_unknown_is_one_error_with_the_nearest_name(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        load(tmp_path, entry)
    assert len(str(found.value).splitlines()) == 2


def test_names_of_columns_are_the_ones_that_rows_are_read_by() -> None:
    from preflow.data.row_formats.candidates import TWO_ANSWERS
    from preflow.data.row_formats.names import KNOWN

    assert {*COLUMN_NAMES} <= {*KNOWN, *TWO_ANSWERS, "model_a", "model_b", "text"}
