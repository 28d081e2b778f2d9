"""What a recipe names is found, digested and named; what is missing or unknown is one clear error."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from preflow.config.validation import Dataset
from preflow.data.files.raw_rows import DataSource
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources, source_names
from preflow.errors import DataFileError


def test_a_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").touch()
    with pytest.raises(DataFileError, match=r"No such file.*pairs\.jsonl"):
        resolve_sources([str(tmp_path / "pair.jsonl")])
    with pytest.raises(DataFileError, match=r"No such file.*written \$\{NAME\}"):
        resolve_sources([str(tmp_path / "$FOLDER" / "pairs.jsonl")])


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataFileError, match=r"'\.txt'.*\.jsonl"):
        resolve_sources([str(tmp_path / "a.txt")])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch(mode=0)
    with pytest.raises(DataFileError, match="Permission denied"):
        resolve_sources([str(tmp_path / "a.jsonl")])


def test_a_folder_gives_its_data_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv", "README.md", ".hidden.jsonl", "sub/c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [Path(source.path).name for source in resolve_sources([str(tmp_path)])] == ["a.csv", "b.jsonl", "c.json"]


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="holds no data file"):
        resolve_sources([str(tmp_path)])


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", "x"), ("b.jsonl", "x"), ("c.jsonl", "y")):
        (tmp_path / name).write_text(text)
    a, b, c = (source.digest for source in resolve_sources([str(tmp_path)]))
    assert a == b != c


def test_names_are_short_unique_and_tell_nothing_of_the_place() -> None:
    paths = ["/x/one/a.jsonl", "/x/two/a.jsonl", "/x/b.csv", "/x/b.csv", "owner/set:train@abc"]
    sources = [DataSource(path=path, digest="") for path in paths]
    assert source_names(sources) == ["one/a.jsonl", "two/a.jsonl", "b.csv", "b.csv (2)", "owner/set:train"]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(f'{{"prompt": "{name} {n}", "completion": "x"}}\n' for n in range(3)))


def found(folder: Path, **said: Any) -> list[str]:
    sources = resolve_sources([Dataset(path=str(folder), **said)])
    return [Path(source.path).relative_to(folder).as_posix() for source in sources]


def test_a_split_of_a_folder_is_read_by_its_name(tmp_path: Path) -> None:
    names = ("data/train_sft-00000-of-00001.jsonl", "data/train_prefs-00000-of-00001.jsonl", "data/test.jsonl")
    write(tmp_path, *names, "validation/0000.jsonl")
    assert found(tmp_path, split="train_prefs") == [names[1]]
    assert found(tmp_path, split="train") == sorted(names[:2])
    assert found(tmp_path, split="dev") == ["validation/0000.jsonl"]
    assert found(tmp_path, split="test") == ["data/test.jsonl"]
    (source,) = resolve_sources([Dataset(path=str(tmp_path), split="test")])
    assert len(source.left_out) == 3
    with pytest.raises(DataFileError, match="no split 'train_pref': did you mean 'train_prefs'"):
        found(tmp_path, split="train_pref")


def test_a_folder_with_training_splits_for_different_stages_is_asked_for_one(tmp_path: Path) -> None:
    for name in ("train_prefs.jsonl", "train_sft.jsonl", "test_prefs.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(DataFileError, match=r"train_prefs, train_sft; name one.*split: train_prefs"):
        resolve_sources([str(tmp_path)])
    (source,) = resolve_sources([Dataset(path=str(tmp_path), split="train_prefs")])
    assert (Path(source.path).name, source.left_out) == ("train_prefs.jsonl", ("test_prefs.jsonl", "train_sft.jsonl"))


def test_a_file_has_neither_split_nor_revision(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl")
    for name in ("split", "revision"):
        with pytest.raises(DataFileError, match=f"is a file, which has no {name}; remove {name}: main"):
            resolve_sources([Dataset.model_validate({"path": str(tmp_path / "a.jsonl"), name: "main"})])
    with pytest.raises(DataFileError, match=r"is no git clone.*remove revision: main"):
        found(tmp_path, revision="main")


def test_the_revision_of_a_clone_is_what_is_checked_out(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        mail = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *mail, *arguments], check=True, capture_output=True)

    git("init", "-b", "main")
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path, name)
        git("add", "-A")
        git("commit", "-m", name)
        git("tag", name)
    assert found(tmp_path, revision="main") == found(tmp_path, revision="b.jsonl") == ["a.jsonl", "b.jsonl"]
    for other in ("a.jsonl", "absent", "--help"):
        with pytest.raises(DataFileError, match=f"has not revision {other} checked out.*git checkout {other}"):
            found(tmp_path, revision=other)


def test_what_git_keeps_in_place_of_a_large_file_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataFileError, match=r"is a pointer of Git LFS.*git lfs pull"):
        resolve_sources([str(tmp_path / "a.jsonl")])


def test_an_array_in_a_file_of_lines_is_one_error_with_its_remedy(tmp_path: Path) -> None:
    rows = '{"prompt": "Hi"},\n{"prompt": "Ho"}'
    for text in (f"\ufeff[\n{rows}\n]\n", "[" + rows.replace("\n", "") + "]\n\n", '{\n  "prompt": "Hi"\n}\n'):
        (tmp_path / "a.jsonl").write_text(text)
        with pytest.raises(DataFileError, match=r"is one JSON text, not an object per line; rename it to a\.json"):
            resolve_sources([str(tmp_path / "a.jsonl")])
    for first in ('[{"role": "user"}]', "{", "["):  # one bad line among good ones
        (tmp_path / "a.jsonl").write_text(f'{first}\n{{"prompt": "Hi"}}\n')
        resolve_sources([str(tmp_path / "a.jsonl")])


def test_the_first_rows_of_an_entry_are_those_of_its_files_together(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "b.jsonl", "c.jsonl")
    for rows, expected in ((2, [2]), (3, [3]), (5, [3, 2]), (100, [3, 3, 94])):
        sources = resolve_sources([Dataset(path=str(tmp_path), rows=rows)])
        assert [source.rows for source in sources] == expected
        read = [row.values["prompt"] for source in sources for row in read_rows(source)]
        assert read == [f"{name}.jsonl {n}" for name in "abc" for n in range(3)][:rows]


def test_a_column_that_no_row_has_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"ask": "Hi", "best": "x"}\n' * 3 + '{"ask": "Hi", "best": "x", "meta": {"worst": "y"}}\n')
    columns: dict[str, str | None] = {"prompt": "ask", "chosen": "best", "rejected": "meta.worst"}
    (source,) = resolve_sources([Dataset(path=str(file), columns=columns)])
    assert source.reading_settings() == {"columns": columns}
    with pytest.raises(DataFileError, match=r"a\.jsonl has the column 'bset': did you mean 'best'"):
        resolve_sources([Dataset(path=str(file), columns={"chosen": "bset"})])
    with pytest.raises(DataFileError, match=r"has the column 'xyz': expected one of ask, best, meta"):
        resolve_sources([Dataset(path=str(file), columns={"chosen": "xyz"})])
