"""What the first rows of a file say: a column is taken for an answer only where no other may be the better one."""

from pathlib import Path

import pytest

from flows.new_recipe.file_facts import FileFacts, file_facts
from preflow.errors import ConfigError
from tests.conftest import write_jsonl


def of_columns(folder: Path, **columns: object) -> FileFacts:
    return file_facts(str(write_jsonl(folder / "rows.jsonl", [columns])))


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("good_answer", "bad_answer"),
        ("preferredReply", "not preferred reply"),
        ("correct_answer", "incorrect_answer"),
        ("best text", "wrong text"),
    ],
)
def test_the_better_and_the_worse_answer_are_found_by_words(tmp_path: Path, chosen: str, rejected: str) -> None:
    facts = of_columns(tmp_path, **{rejected: "No", chosen: "Yes", "user": "Hi", "positive": True})
    assert (facts.kind, facts.reading.columns) == (
        "preferences", {"prompt": "user", "chosen": chosen, "rejected": rejected}
    )  # fmt: skip


@pytest.mark.parametrize(
    "columns", [{"best_answer", "other_answer"}, {"bad_answer", "other_answer"}, {"not_chosen", "answer_text"}]
)
def test_an_answer_beside_a_better_or_a_worse_one_is_not_learnt_unasked(tmp_path: Path, columns: set[str]) -> None:
    with pytest.raises(ConfigError, match="name its columns in a recipe"):
        of_columns(tmp_path, user="Hi", **dict.fromkeys(columns, "Text"))


def test_a_transcript_is_recognised_beside_columns_of_other_things(tmp_path: Path) -> None:
    facts = of_columns(tmp_path, text="### Human: Hi### Assistant: Hello", id=7)
    assert (facts.kind, facts.reading.format) == ("demonstrations", "text")


def test_every_file_of_a_folder_is_looked_at(tmp_path: Path) -> None:
    """The first 1,000 rows are those of the first file alone."""
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"Hi {n}", "completion": "Hello"} for n in range(1001)])
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}])
    with pytest.raises(ConfigError, match=r"in two ways.*a\.jsonl:1.*b\.jsonl:1.*or the files one by one"):
        file_facts(str(tmp_path))
