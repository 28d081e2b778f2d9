"""A benchmark, a human review and a promotion of one run, on a tiny model with the real harness."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.running.preparation import PACKAGED_RECIPES
from tests.integration.conftest import Pipeline

TASKS = PACKAGED_RECIPES / "demo" / "tasks"


@pytest.mark.slow
def test_people_promote_a_model_unless_a_benchmark_says_that_it_is_worse(
    served: Pipeline, tiny_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Both reviewers prefer the new model on all pairs.

    Answered alike, the 24 documents allow a loss of z^2 / (24 + z^2) = 0.17 at the first decision's level of 0.025
    (z = 2.24): a margin of 0.25 holds, and is broken where all documents are lost.
    """
    pytest.importorskip("lm_eval", reason="the extra preflow[bench] is not installed")
    shutil.copytree(TASKS, tmp_path / "tasks")
    answers = {"kl_prompts": 24, "max_new_tokens": 12, "bootstrap_samples": 100}
    file = tiny_recipe_file(
        eval_split=0.5,
        evaluation={**answers, "benchmarks": {"tasks": ["tasks/courtesy.yaml"]}},
        promotion={
            "primary": "human_win_rate",
            "guards": {"benchmark_margin": 0.25, "kl": 1000, "length_ratio": 10, "perplexity_ratio": 10},
        },
    )
    done = served.start(str(file), module="flows.two_stage")
    assert done.returncode == 0, done.stderr
    done = served.start(str(file), str(tmp_path / "sheets"), module="tests.integration.promoted_by_people")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: code for name, (code, _) in found.items()} == {"open": 0, "collect": 0, "worse": 1, "promote": 0}, (
        found
    )
    assert (
        "guard benchmark_margin: largest loss in a benchmark that its interval allows is 1, limit 0.25"
        in (found["worse"][1])
    )
    assert "version 1 of tiny is refused" in found["worse"][1]
    assert "win rate 1.000 in human review, above one half by +0.500" in found["promote"][1]
    assert "version 1 of tiny is promoted" in found["promote"][1]
    (parent, *_) = served.runs()
    metrics = parent.data.metrics
    assert metrics["human/win_rate"] == 1
    assert {"bench/courtesy/acc_sft", "bench/courtesy/acc_dpo", "bench/courtesy/delta"} <= metrics.keys()
