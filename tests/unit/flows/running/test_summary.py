"""The table at the end."""

import io
from typing import Any

from rich.console import Console

from flows.running import summary
from flows.running.preparation import Diagnosis
from flows.running.summary import (
    benchmark_sentences,
    description,
    judge_sentences,
    legend,
    markdown,
    metric_rows,
    result_sentence,
)
from preflow.diagnosis.finding import RunFinding

ACCURACY = {"value": 0.7, "low": 0.6, "high": 0.8}
REPORT: dict[str, Any] = {
    "models": {
        "base": {"preference_accuracy": ACCURACY, "perplexity": 9.0},
        "dpo": {
            "preference_accuracy": ACCURACY,
            "preference_accuracy_length_matched": {**ACCURACY, "n": 31},
            "reward_margin": ACCURACY,
            "kl_sft": {"value": 1.0, "se": 0.1},
        },
        "sft": {"preference_accuracy": ACCURACY},
    },
    "comparison": {"preference_accuracy_gain": {"value": 0.2, "low": 0.1, "high": 0.3}},
    "n_pairs": 40,
    "power": {"prompts": 40, "visible_difference": 0.2214, "small_difference": 0.05, "prompts_needed": 785},
    "confidence": 0.95,
    "warnings": ["few pairs"],
}
#: Every measure in its longest form.
WIDE = {"value": -1.25, "low": -1.5, "high": -1.0}
FULL: dict[str, Any] = {
    **REPORT,
    "models": {
        name: {
            **dict.fromkeys(("preference_accuracy", "reward_accuracy", "reward_margin"), ACCURACY),
            "preference_accuracy_length_matched": {**ACCURACY, "n": 31},
            "kl_sft": {"value": 20.36, "se": 1.09},
            "kl_base": {"value": 120.36, "se": 11.09},
            "perplexity": 152.57,
            "response_tokens": 159.2,
            "cut_share": 1.0,
        }
        | ({"chosen_logp_change": WIDE, "rejected_logp_change": WIDE} if name == "dpo" else {})
        for name in ("base", "sft", "dpo")
    },
}
NOISE = RunFinding("label_noise", "labels disagree", "36% of 72 pairs", "dpo.loss_type: robust", 0.6, ("a.jsonl:7",))
SAMPLES = [{"prompt": "Where\nis it?", "answers": {"base": "a [b]", "dpo": "c", "sft": "d"}}]


def test_rows_hold_models_in_order_and_gaps_for_what_is_not_defined() -> None:
    rows = metric_rows(REPORT)
    assert list(rows[0]) == ["measure", "base", "SFT", "DPO"]
    assert rows[0]["base"] == "0.70 [0.60, 0.80]"
    margin = next(row for row in rows if row["measure"] == "reward margin")
    assert (margin["base"], margin["SFT"]) == ("", "")
    assert "Length-matched: 31 of 40 pairs." in legend(REPORT)


def test_without_sft_the_reference_is_the_base_model() -> None:
    models = {name: REPORT["models"][name] for name in ("base", "dpo")}
    report = {**REPORT, "models": models}
    assert "are against base" in legend(report)
    assert "minus that of base: +0.200 [+0.100, +0.300]" in result_sentence(report)


def test_the_summary_says_what_so_many_prompts_can_show() -> None:
    """2.801585 x 0.5 / sqrt(40) = 0.22149."""
    assert "40 prompts show differences of 22.1 points and more (power 80 %); 785 would show 5." in (
        markdown("r", REPORT, [], "/model")
    )


def test_a_recipe_without_pairs_has_a_summary() -> None:
    report = {"models": {"base": {}, "sft": {}}, "n_pairs": 0, "confidence": 0.95, "warnings": []}
    text = markdown("r", report, [], "/model")
    assert "No held-out preference pairs" in text
    assert "| measure | base | SFT |" in text


def test_markdown_has_table_warning_answers_and_place() -> None:
    text = markdown("r", REPORT, SAMPLES, "/model")
    assert "| preference accuracy | 0.70 [0.60, 0.80] |" in text
    assert "**Warning:** few pairs" in text
    assert "**Prompt** `Where is it?`" in text
    assert text.index("- base: `a [b]`") < text.index("- SFT: `d`") < text.index("- DPO: `c`")


def test_findings_stand_in_every_form_of_the_summary_with_evidence_rows_and_remedy() -> None:
    diagnosis = Diagnosis(findings=(NOISE,), resources=("dpo took 1.90 GiB",))
    for text in (markdown("r", REPORT, SAMPLES, "/model", diagnosis), description(REPORT, diagnosis)):
        assert "- **label_noise**: labels disagree (36% of 72 pairs). Try `dpo.loss_type: robust`." in text
        assert "Rows: `a.jsonl:7`" in text
        assert "- dpo took 1.90 GiB." in text
    out = io.StringIO()
    summary._print_diagnosis(diagnosis, Console(file=out, width=200))
    assert "diagnosis: label_noise: labels disagree (36% of 72 pairs). Try dpo.loss_type: robust." in out.getvalue()
    assert "rows: a.jsonl:7" in out.getvalue()


def test_a_run_without_findings_reports_that_it_was_looked_at() -> None:
    out = io.StringIO()
    summary._print_diagnosis(Diagnosis(), Console(file=out, width=200))
    assert summary.HEALTHY in out.getvalue()
    assert summary.HEALTHY in markdown("r", REPORT, SAMPLES, "/model", Diagnosis())


def test_the_table_fits_eighty_columns_without_cutting_a_number() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(summary._table("r", FULL))
    assert "…, " not in out.getvalue()
    for row in metric_rows(FULL):
        line = next(line for line in out.getvalue().splitlines() if line.strip().startswith(row["measure"]))
        assert all(cell in line for cell in row.values())
    assert max(map(len, out.getvalue().splitlines())) <= 80


TEST = {"fit": True, "accuracy": ACCURACY, "pairs": 100, "consistency": 0.9, "reason": ""}
JUDGED: dict[str, Any] = {
    "judge": {"kind": "endpoint", "model": "judge-1"},
    "test": TEST,
    "models": ["dpo", "sft"],
    "win_rate": ACCURACY,
    "win_rate_lc": None,
    "win_rate_lc_reason": "longer on 100% and shorter on 0% of the prompts: expected 5% each",
    "prompts": 64,
    "unreadable": 2,
}


def test_a_judge_is_named_with_its_test_and_its_win_rate_with_what_length_leaves_of_it() -> None:
    tested, won = judge_sentences({**REPORT, "judge": JUDGED})
    assert tested == (
        "Judge judge-1: agrees with people on 0.70 [0.60, 0.80] of 100 held-out pairs, the same in both orders on 90%."
    )
    assert won == (
        "Win rate of DPO against SFT: 0.70 [0.60, 0.80] on 64 prompts; at equal length none (longer on 100% and "
        "shorter on 0% of the prompts: expected 5% each); 2 without a readable verdict."
    )
    assert tested in markdown("demo", {**REPORT, "judge": JUDGED}, [], "model")


def test_an_unfit_judge_is_named_with_its_reason_and_gives_no_win_rate() -> None:
    unfit = {**JUDGED, "test": {**TEST, "fit": False, "reason": "it agrees with people on 0.50 of 100 pairs"}}
    (line,) = judge_sentences({**REPORT, "judge": unfit})
    assert line == "Judge judge-1 is unfit, so there is no win rate: it agrees with people on 0.50 of 100 pairs."
    assert judge_sentences(REPORT) == []


def test_benchmarks_are_said_with_every_model_and_the_paired_difference() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 0.75}
    delta = {"difference": {"value": 0.25, "low": 0.0, "high": 0.5}, "adjusted_p": 0.0625}
    task = {"metric": "acc", "documents": 12, "models": {"sft": share, "dpo": share}, "delta": delta}
    (line,) = benchmark_sentences({"benchmarks": {"tone": task}})
    assert line.startswith("Benchmark tone, acc on 12 documents: sft 0.50")
    assert line.endswith("p = 0.0625 (Holm).")
    assert benchmark_sentences({}) == []
