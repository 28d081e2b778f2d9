"""Names of files tell their split by whole words; of a folder the training files are read."""

from pathlib import PurePath

import pytest

from preflow.data.files.split_names import several_training_splits, split_of, training_files


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/test-00000-of-00001.parquet", "other"),
        ("validation.jsonl", "other"),
        ("test/part.jsonl", "other"),
        ("train/test-like.jsonl", "other"),
        ("preferences_held_out.jsonl", "other"),
        ("pairs.jsonl", None),
        ("latest.jsonl", None),
        ("trainer.csv", None),
    ],
)
def test_whole_words_name_a_split(name: str, split: str | None) -> None:
    assert split_of(PurePath(name)) == split


def test_other_splits_are_left_out_where_there_are_other_files() -> None:
    train, test, plain = PurePath("train.csv"), PurePath("test.csv"), PurePath("pairs.csv")
    assert training_files([test, train]) == ([train], [test])
    assert training_files([plain, test]) == ([plain], [test])
    assert training_files([test]) == ([test], [])


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train_prefs-00000-of-00001.parquet", "train_sft-00000-of-00001.parquet"], ["train_prefs", "train_sft"]),
        (["train_sft/data-00000-of-00001.arrow", "train_gen/data-00000-of-00001.arrow"], ["train_gen", "train_sft"]),
        (["train_sft-00000-of-00002.parquet", "train_sft-00001-of-00002.parquet"], []),
        (["train_part_one.jsonl", "train_part_two.jsonl"], []),
        (["train.jsonl", "sft.jsonl"], []),
    ],
)
def test_training_splits_for_different_stages_are_told_apart(names: list[str], splits: list[str]) -> None:
    assert several_training_splits([PurePath(name) for name in names]) == splits
