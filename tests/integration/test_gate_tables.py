"""What data validation found is a table in Prefect, read back from the server that the flow ran against."""

import json
from pathlib import Path

import pytest

from tests.conftest import demonstration_rows, preference_rows, write_jsonl
from tests.integration.conftest import Pipeline
from tests.integration.test_pipeline import STAGES


@pytest.mark.slow
def test_findings_are_a_table_in_prefect_by_file_and_row_of_an_unfit_set_too(pipeline: Pipeline, recipe: Path) -> None:
    """A run on data that are fit and one on data that are not, which ends there; in one process."""
    pairs, shown = preference_rows(60), demonstration_rows(60)
    for row in (4, 9):
        pairs[row - 1]["chosen"] = " "
    pairs[19] = {**pairs[19], "rejected": pairs[19]["chosen"].upper()}
    shown[6] = {"prompt": "no answer"}
    write_jsonl(recipe.parent / "dpo.jsonl", pairs)
    write_jsonl(recipe.parent / "sft.jsonl", shown)
    unfit = recipe.with_name("unfit.yaml")
    unfit.write_text(recipe.read_text().replace("dpo.jsonl", "alike.jsonl"))
    alike = [{**row, "chosen": row["rejected"]} for row in preference_rows(60)]
    write_jsonl(recipe.parent / "alike.jsonl", alike)
    options = ("--set", "dpo.eval_split=0.3")
    done = pipeline.start(str(recipe), *options, module="tests.integration.gate_alone", THEN=str(unfit))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "60 of 60 rows are quarantined" in " ".join(done.stderr.split())
    assert pipeline.calls == [stage for stage in STAGES if stage != "validate"], "the unfit set ends its run"
    (identical,) = (row for row in table(done.stdout, "unfit-data")[0] if row["finding"] == "identical_answers")
    assert identical["rows"] == "60"
    rows, description = table(done.stdout, "tiny-data")
    named = {(row["data"], row["finding"]): row for row in rows}
    assert named["preferences", "blank_text"]["first"] == "dpo.jsonl:4, dpo.jsonl:9"
    assert named["preferences", "blank_text"]["rows"] == "2"
    assert named["preferences", "blank_text"]["severity"] == "set_aside"
    assert named["preferences", "identical_answers"]["first"] == "dpo.jsonl:20"
    assert named["demonstrations", "missing_column"]["first"] == "sft.jsonl:7"
    severities = [row["severity"] for row in rows]
    assert severities == sorted(severities, key=["stop", "set_aside", "warn"].index)
    page = Path(description.rpartition(" ")[2])
    assert page.name == "report.html"
    assert "<code>dpo.jsonl</code> rows 4, 9<" in page.read_text(encoding="utf-8")


def table(said: str, key: str) -> tuple[list[dict[str, str]], str]:
    """A table of findings and its description."""
    (line,) = (line for line in said.splitlines() if line.startswith('{"'))
    rows, description = json.loads(line)[key]
    return rows, description
