"""The table of formats decides which names are data files, for recipes and readers alike."""

from pathlib import Path, PurePath

import pytest

from preflow.config.loading import load_recipe
from preflow.formats import COMPRESSIONS, DATA_SUFFIXES, FORMATS, file_format, known_suffixes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("jsonl", None)),
        ("a.NDJSON", ("jsonl", None)),
        ("a.b.json.gz", ("json", "gzip")),
        ("a.csv.ZST", ("csv", "zstd")),
        ("a.parquet", ("parquet", None)),
        ("a.parquet.gz", None),
        ("a.tsv.gz", ("tsv", "gzip")),
        ("a.arrow", ("arrow", None)),
        ("a.gz", None),
        ("jsonl", None),
        ("a.txt", None),
    ],
)
def test_a_name_gives_format_and_compression_or_nothing(name: str, expected: tuple[str, str | None] | None) -> None:
    assert file_format(PurePath(name)) == expected


def test_messages_name_every_suffix() -> None:
    assert (
        known_suffixes()
        == ".jsonl, .ndjson, .json, .csv, .tsv, .tab, .parquet, .arrow (text files also compressed: .gz, .zst)"
    )


def test_a_recipe_takes_every_suffix_of_the_table_for_a_file_and_other_names_for_the_hub(tmp_path: Path) -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    names = [f"data/absent{suffix}" for suffix in [*suffixes, *COMPRESSIONS]]
    listed = ", ".join([*names, "owner/name"])
    (tmp_path / "r.yaml").write_text(f"model_name: m\nstrategy: sft\nsft: {{dataset: [{listed}]}}\n")
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.sft is not None
    assert recipe.sft.dataset == (*(str(tmp_path / name) for name in names), "owner/name")
    assert len(DATA_SUFFIXES) == len(names)
