"""The benchmark of alignment runs its chain on a tiny model, finds it again, and reports by the targets."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import bench_alignment
from bench.bench_alignment import PublicSet, recipe_of, report, summary
from bench.parts import alignment_chain
from bench.parts.alignment_chain import run_chain
from tests.conftest import demonstration_rows, preference_rows, write_jsonl


def values(low: float, gain: float, kl: float) -> dict[str, Any]:
    share = {"value": low + 0.1, "low": low, "high": low + 0.2}
    change = {"chosen_logp_change": share, "rejected_logp_change": share}
    dpo = {"reward_accuracy": share, "preference_accuracy": share, "kl_base": {"value": kl}, **change}
    found = [{"name": "label_noise", "evidence": "36%", "remedy": "dpo.beta: 0.3"}]
    return {
        "models": {"base": {"preference_accuracy": share}, "dpo": dpo},
        "comparison": {"preference_accuracy_gain": {"value": gain, "low": gain - 0.01, "high": gain + 0.01, "p": 0.2}},
        "reference": "base",
        "n_pairs": 100,
        "training_pairs": 400,
        "learning_rate": 1e-4,
        "seconds": 12.0,
        "diagnosis": found,
    }


def test_the_last_line_counts_the_sets_that_meet_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    found = {"a": values(0.6, 0.05, 1.0), "b": values(0.4, 0.05, 12.0), "c": values(0.55, -0.02, 2.0)}
    found["a, zero_a"] = values(0.6, 0.05, 1.0)
    report(found)
    printed = capsys.readouterr().out.strip().splitlines()
    last = json.loads(printed[-1])
    assert (last["reward_above_chance"], last["preference_gain"], last["kl_below_10"]) == (2, 2, 2)
    assert last == summary(found)
    assert "| a | 400 + 100 | 0.0001 | 0.70, –, 0.70 | +0.050 [+0.040, +0.060], p = 0.2 |" in "\n".join(printed)
    assert "  label_noise: 36%. Try dpo.beta: 0.3" in printed


@pytest.mark.nightly
def test_the_chain_on_a_tiny_model_learns_as_trl_does(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(alignment_chain, "place", lambda stage, spec: tmp_path / "store" / stage)
    write_jsonl(tmp_path / "p.jsonl", preference_rows(120))
    write_jsonl(tmp_path / "d.jsonl", demonstration_rows(60))
    files = PublicSet("p.jsonl", "d.jsonl", 256)
    test = {"range_test_rates": [1e-3, 1e-2], "range_test_steps": 3, "max_steps": 12}
    recipe = recipe_of("tiny", files, tmp_path, str(tiny_folder), 120, **test)
    recipe = recipe.model_copy(
        update={"evaluation": recipe.evaluation.model_copy(update={"kl_prompts": 4, "max_new_tokens": 6})}
    )
    found = run_chain(recipe, trl_steps=4)
    assert found["trl"]["largest_difference"] < 1e-4, "the same curve as TRL's own trainer"
    assert found["learning_rate"] in (1e-3, 1e-2)
    again = run_chain(recipe, trl_steps=4)
    assert again == found, "nothing is computed twice, and it took what it took"
    assert found["seconds"] > 0
    bench_alignment.report({"tiny": found})
