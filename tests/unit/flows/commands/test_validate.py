"""``python -m flows.validate``: verdict, exit codes, and one clear error for every broken file."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from flows.commands.validate import main
from tests.conftest import demonstration_rows, preference_rows, write_jsonl

GOOD = json.dumps(preference_rows(1)[0])


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of the command."""
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def report(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the JSON that programs read."""
    code, out, _ = run(*arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    return code, found


@pytest.mark.slow
def test_a_good_file_is_fit_and_its_rows_are_parted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(60))
    code, found = report(str(file), "--out", str(tmp_path / "out"))
    assert (code, found["verdict"], found["preferences"]["rows_in"]) == (0, "fit", 60)
    lines = [(tmp_path / "out" / f"preferences.{side}.jsonl").read_text().splitlines() for side in ("train", "eval")]
    assert len(lines[0]) + len(lines[1]) == 60
    code, out, _ = run(str(file), "--out", str(tmp_path / "out"))
    assert code == 0
    assert "The data are fit." in out
    assert "60 rows in" in " ".join(out.split())


@pytest.mark.slow
def test_advice_is_said_once_in_the_terminal_the_page_and_the_json(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(100))
    _, found = report(str(file), "--out", str(tmp_path / "out"))
    (advice,) = found["advice"]
    assert "pairs are held out: below 50" in advice
    assert "fewer_rows_than_recommended" in found["preferences"]["findings"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    _, out, _ = run(str(file), "--out", str(tmp_path / "out"))
    for text in (page, " ".join(out.split())):
        assert text.count("pairs are held out: below 50") == 1
    assert page.count("fewer rows than recommended") == out.count("fewer_rows_than_recommended") == 1


@pytest.mark.slow
def test_demonstrations_are_recognised_and_a_kind_can_be_named(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", demonstration_rows(20))
    assert report(str(file))[1].keys() >= {"demonstrations"}
    code, found = report(str(file), "--kind", "preferences")
    assert (code, found["verdict"]) == (1, "unfit")
    assert "missing in every row" in found["critical"][0]
    assert report(str(file), "--kind", "pears")[0] == 2


def test_rows_that_can_be_read_in_two_ways_are_asked_about_with_both_answers(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "b.jsonl", [*preference_rows(4), *demonstration_rows(4)])
    code, out, error = run(str(file))
    told = " ".join((out + error).split())
    assert code == 2
    assert "--kind demonstrations" in told
    assert "--kind preferences" in told
    assert "b.jsonl:1 is chosen and rejected" in told
    assert "b.jsonl:5 is prompt and answer" in told


@pytest.mark.slow
def test_how_rows_were_read_is_said_in_the_terminal_the_page_and_the_json(tmp_path: Path) -> None:
    rows = [{"instruction": row["prompt"], "output": row["completion"], "topic": "t"} for row in demonstration_rows(30)]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    _, found = report(str(file), "--out", str(tmp_path / "out"))
    reading = found["demonstrations"]["reading"]
    assert (reading["formats"]["alpaca"]["rows"], reading["unused_columns"]) == (30, {"topic": 30})
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    _, out, _ = run(str(file), "--out", str(tmp_path / "out"))
    for text in (page, " ".join(out.split())):
        assert "alpaca demonstrations: instruction -" in text
        assert "prompt, output -" in text
        assert "not used: columns topic (30 rows)" in text


@pytest.mark.slow
def test_files_of_both_kinds_are_told_apart_file_by_file(tmp_path: Path) -> None:
    files = [
        write_jsonl(tmp_path / "p.jsonl", preference_rows(30)),
        write_jsonl(tmp_path / "d.jsonl", demonstration_rows(30)),
    ]
    code, found = report(*map(str, files))
    assert code == 0
    assert {kind: list(found[kind]["files"]) for kind in ("demonstrations", "preferences")} == {
        "demonstrations": ["d.jsonl"],
        "preferences": ["p.jsonl"],
    }


@pytest.mark.slow
def test_columns_and_first_rows_that_a_recipe_names_are_in_the_report_under_the_files_names(tmp_path: Path) -> None:
    rows = [{"ask": r["prompt"], "best": r["chosen"], "worst": r["rejected"], "chosen": 7} for r in preference_rows(60)]
    write_jsonl(tmp_path / "p.jsonl", rows)
    recipe = tmp_path / "r.yaml"
    columns = "{prompt: ask, chosen: best, rejected: worst}"
    recipe.write_text(f"strategy: dpo\ndataset: {{path: p.jsonl, rows: 40, columns: {columns}}}\n")
    code, found = report(str(recipe), "--out", str(tmp_path / "out"))
    reading = found["preferences"]["reading"]
    assert (code, found["preferences"]["rows_in"], reading["first_rows"]) == (0, 40, {"p.jsonl": 40})
    how = "ask -> prompt, best -> chosen, worst -> rejected"
    assert reading["formats"] == {"chosen and rejected": {"rows": 40, "how": how}}
    assert reading["unused_columns"] == {"chosen": 40}
    assert all(
        set(json.loads(line)["values"]) == set(rows[0]) for line in (tmp_path / "out" / "quarantine.jsonl").open()
    )
    told = " ".join(run(str(recipe), "--out", str(tmp_path / "out"))[1].split())
    assert f"chosen and rejected pairs: {how} (40 rows)" in told
    assert "at most the first rows were read, as the recipe's rows says: 40 of p.jsonl" in told


@pytest.mark.slow
def test_what_a_recipe_says_of_a_single_file_can_be_given_as_an_override(tmp_path: Path) -> None:
    rows = [{"text": f"### Human: {r['prompt']}### Assistant: {r['completion']}"} for r in demonstration_rows(30)]
    file = str(write_jsonl(tmp_path / "t.jsonl", rows))
    code, found = report(file)
    assert (code, found["demonstrations"]["findings"]["text_alone"]["count"]) == (1, 30)
    code, found = report(file, "--set", "sft.dataset.format=text", "--set", "sft.dataset.rows=20")
    assert (code, found["demonstrations"]["used"]) == (0, 20)


@pytest.mark.slow
def test_a_finding_shows_what_is_wrong_with_its_first_row(tmp_path: Path) -> None:
    rows = preference_rows(30)
    rows[2]["chosen"] = "nan"
    _, out, _ = run(str(write_jsonl(tmp_path / "p.jsonl", rows)), "--out", str(tmp_path / "out"))
    assert "chosen is the text nan" in " ".join(out.split())


@pytest.mark.slow
def test_a_folder_is_found_by_its_plain_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hubdir" / "data").mkdir(parents=True)
    write_jsonl(tmp_path / "hubdir" / "data" / "train-00000.jsonl", preference_rows(30))
    write_jsonl(tmp_path / "hubdir" / "data" / "test-00000.jsonl", preference_rows(9))
    monkeypatch.chdir(tmp_path)
    _, found = report("hubdir", "--out", str(tmp_path / "out"))
    assert list(found["preferences"]["files"]) == ["train-00000.jsonl"]
    assert found["preferences"]["reading"]["left_out"] == ["data/test-00000.jsonl"]


@pytest.mark.slow
def test_an_unfit_file_leaves_its_report_and_its_exit_code(tmp_path: Path) -> None:
    rows = preference_rows(5)
    for row in rows[:4]:
        row["chosen"] = " "
    file = write_jsonl(tmp_path / "p.jsonl", rows)
    code, out, _ = run(str(file), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "blank_text" in out
    assert (tmp_path / "out" / "report.html").is_file()
    assert len((tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere_and_holds_no_markup_of_the_data(tmp_path: Path) -> None:
    rows = preference_rows(40)
    rows[3]["chosen"] = rows[3]["rejected"] = "<script src='https://example.org/x.js'></script>"
    run(str(write_jsonl(tmp_path / "p.jsonl", rows)), "--out", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script" in page
    assert not any(mark in page for mark in ("<script", "<link", "<img", 'src="', "@import", "url("))


@pytest.mark.slow
def test_examples_are_cut_to_a_few_words_unless_the_recipe_allows_whole_texts(tmp_path: Path) -> None:
    rows = preference_rows(40)
    rows[3]["chosen"] = rows[3]["rejected"] = "one two three four five six seven eight nine ten secretword"
    file, page = write_jsonl(tmp_path / "p.jsonl", rows), tmp_path / "out" / "report.html"
    for allowed in (False, True):
        run(str(file), "--out", str(tmp_path / "out"), "--set", f"validation.whole_examples={allowed}")
        assert ("secretword" in page.read_text(encoding="utf-8")) is allowed


@pytest.mark.slow
def test_a_recipe_gives_files_and_thresholds_and_settings_can_be_overridden(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", preference_rows(40))
    write_jsonl(tmp_path / "bench.jsonl", [{"question": preference_rows(8)[7]["prompt"].upper()}])
    recipe = tmp_path / "r.yaml"
    recipe.write_text("strategy: dpo\ndataset: p.jsonl\nvalidation: {benchmark_files: bench.jsonl, minimum_rows: 3}\n")
    code, found = report(str(recipe))
    assert code == 0
    assert found["preferences"]["findings"]["in_benchmark"]["rows"] == {"p.jsonl": [8]}
    assert report(str(recipe), "--set", "validation.minimum_rows=50")[0] == 1
    assert report(str(recipe), "--set", "validation.severity={in_benchmark: stop}")[0] == 1
    code, found = report(str(recipe), "--set", "validation.minimum_rowz=50")
    assert (code, found["error"]) == (2, "ConfigError")
    assert "minimum_rows" in found["message"]


def test_a_folder_that_is_no_report_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    file = write_jsonl(tmp_path / "p.jsonl", preference_rows(5))
    assert report(str(file), "--out", str(tmp_path / "out"))[0] == 2
    assert (tmp_path / "out" / "thesis.txt").exists()


def _parquet(path: Path) -> None:
    pq.write_table(pa.table({"topic": ["a", "b"], "remark": ["c", "d"]}), path)


#: File name, how it is written, exit code, and what the message says.
BROKEN: dict[str, tuple[str, Callable[[Path], object], int, str]] = {
    "truncated gzip": (
        "a.jsonl.gz",
        lambda path: path.write_bytes(gzip.compress((GOOD + "\n").encode() * 9)[:60]),
        2,
        r"a.jsonl.gz cannot be read",
    ),
    "NUL bytes": ("a.jsonl", lambda path: path.write_bytes(b"\x00" * 200), 1, "line 1"),
    "doubled key": (
        "a.jsonl",
        lambda path: path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "chosen": "d"}\n'),
        1,
        "the key 'chosen' is given twice",
    ),
    "deep nesting": ("a.jsonl", lambda path: path.write_text("[" * 100_000), 1, "nested too deeply"),
    "deep array": ("a.json", lambda path: path.write_text("[" * 100_000), 2, "a.json is not valid JSON"),
    "array cut off": ("a.json", lambda path: path.write_text(f"[{GOOD},\n{GOOD[:-9]}"), 2, "line 2 column"),
    "rows inside an object": (
        "a.json",
        lambda path: path.write_text(f'{{"pairs": [{GOOD}]}}'),
        2,
        "'pairs' holds 1 objects",
    ),
    "wrong extension": ("a.csv", lambda path: path.write_bytes(gzip.compress(b"a,b")), 2, "gzip-compressed"),
    "unknown extension": ("a.txt", lambda path: path.write_text(GOOD), 2, "no known data format"),
    "empty": ("a.jsonl", lambda path: path.touch(), 1, "hold no row at all"),
    "white space": ("a.jsonl", lambda path: path.write_text("\n\n \n"), 1, "hold no row at all"),
    "folder without data": ("folder", lambda path: path.mkdir(), 2, "holds no data file"),
    "folder by the name of a file": ("a.jsonl", lambda path: path.mkdir(), 2, "holds no data file"),
    "missing": ("a.jsonl", lambda path: None, 2, "No such file"),
    "another schema": ("a.parquet", _parquet, 1, "got topic, remark; expected a prompt"),
    "no Parquet": ("a.parquet", lambda path: path.write_text(GOOD), 2, "a.parquet cannot be read"),
    "UTF-16": ("a.jsonl", lambda path: path.write_bytes(GOOD.encode("utf-16")), 2, "UTF-16"),
    "Latin-1 line": ("a.jsonl", lambda path: path.write_bytes(b'{"prompt": "caf\xe9"}\n'), 1, "can't decode byte 0xe9"),
    "open quotes": ("a.csv", lambda path: path.write_text('prompt,chosen,rejected\n"a,b,c\n'), 2, "cannot be read"),
    "broken recipe": ("a.yaml", lambda path: path.write_text("a: [1"), 2, "a.yaml"),
    "number for a recipe": ("a.yaml", lambda path: path.write_text("4"), 2, "a.yaml"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_clear_message(tmp_path: Path, case: str) -> None:
    name, write, expected, reason = BROKEN[case]
    write(tmp_path / name)
    code, found = report(str(tmp_path / name), "--out", str(tmp_path / "out"))
    text = found.get("message") or " ".join(
        [*found["critical"], *(e["example"] for e in found["preferences"]["findings"].values())]
    )
    assert code == expected, text
    assert reason in text
    if code == 1 and "hold no row" not in text:
        rows = [row for e in found["preferences"]["findings"].values() for row in e["rows"].get(name, [])]
        assert rows[0] == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch(mode=0)
    code, found = report(str(tmp_path / "a.jsonl"))
    assert code == 2
    assert "Permission denied" in found["message"]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["bom", "crlf", "no last line end"])
def test_harmless_oddities_change_nothing(tmp_path: Path, change: str) -> None:
    text = "".join(json.dumps(row) + "\n" for row in preference_rows(40)).encode()
    changed = {"bom": b"\xef\xbb\xbf" + text, "crlf": text.replace(b"\n", b"\r\n"), "no last line end": text[:-1]}
    (tmp_path / "p.jsonl").write_bytes(changed[change])
    code, found = report(str(tmp_path / "p.jsonl"))
    assert (code, found["preferences"]["rows_in"], found["preferences"]["set_aside"]) == (0, 40, 0)


@pytest.mark.slow
def test_a_line_of_50_megabytes_is_one_row_that_is_too_long(tmp_path: Path) -> None:
    row = {**preference_rows(1)[0], "chosen": "word " * 10_000_000}
    write_jsonl(tmp_path / "p.jsonl", [*preference_rows(40), row])
    code, found = report(str(tmp_path / "p.jsonl"))
    assert code == 0
    assert found["preferences"]["findings"]["text_too_long"]["rows"] == {"p.jsonl": [41]}


@pytest.mark.slow
def test_the_command_starts_no_server_and_loads_no_model_library() -> None:
    code = "import sys, flows.commands.validate, expectations.gate\n"
    code += "print([m for m in ('torch', 'transformers', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["x" * 5000 + ".jsonl", "~no-such-user/a.jsonl"])
def test_a_path_that_can_be_none_is_one_error_here_too(name: str) -> None:
    app = typer.Typer()
    app.command()(main)
    done = CliRunner().invoke(app, [name])
    assert (done.exit_code, done.exception.__class__) == (2, SystemExit), done.output
    assert len(done.output) < 1000
