"""Checks of a run without MLflow: what is found, and what it is called."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from preflow.config import Recipe
from preflow.evaluation.preferences import PairScores, compare, preference_report
from preflow.fingerprints.files import json_digest
from preflow.verification.check import Check, together
from preflow.verification.numbers import recomputed
from preflow.verification.recorded import RecordedRun, place_of
from preflow.verification.run_checks import verify_run

_SMALL = {"bootstrap_samples": 200}
RECIPE = Recipe.model_validate(
    {"name": "r", "model_name": "m", "sft": {"dataset": "d"}, "dpo": {"dataset": "p"}, "evaluation": _SMALL}
)


def test_a_check_has_the_state_of_its_worst_part() -> None:
    fine, gone, other = Check("a", "ok"), Check("b", "not reachable", "x"), Check("c", "changed", "y")
    assert together("all", fine).state == "ok"
    assert together("all", fine, gone).state == "not reachable"
    assert together("all", gone, together("more", other)).state == "changed"
    assert [each.name for each in together("all", gone, together("more", other)).failed()] == ["b", "c"]


def kept(pairs: int = 40) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Two rows for each prompt, and the evaluation that they give."""
    rng = np.random.default_rng(0)
    values = {name: rng.normal(-4, 1, (2, pairs)) for name in ("sft", "dpo")}
    tokens = np.full(pairs, 2.0)
    scores = {name: PairScores(both[0], both[1], tokens, tokens) for name, both in values.items()}
    clusters = np.arange(pairs) // 2
    reports = {
        name: preference_report(
            score, scores["sft"] if name == "dpo" else None, 0.1, RECIPE.evaluation, RECIPE.seed, clusters
        )
        for name, score in scores.items()
    }
    rows = [
        {
            "cluster": str(place // 2),
            "chosen_tokens": 2,
            "rejected_tokens": 2,
            **{
                f"{side}_logprob_{name}": values[name][at][place]
                for name in values
                for at, side in enumerate(("chosen", "rejected"))
            },
        }
        for place in range(pairs)
    ]
    gain = compare(scores["dpo"], scores["sft"], RECIPE.evaluation, RECIPE.seed, clusters)
    return rows, {"models": reports, "comparison": gain}


def test_measures_are_computed_anew_from_kept_rows_bit_for_bit() -> None:
    rows, evaluation = kept()
    assert recomputed(RECIPE, rows, evaluation) == []


def test_a_measure_that_its_rows_do_not_give_is_named() -> None:
    rows, evaluation = kept()
    evaluation["models"]["dpo"]["reward_margin"]["high"] += 1e-12
    (wrong,) = recomputed(RECIPE, rows, evaluation)
    assert wrong.startswith("dpo: reward_margin is ")
    rows, evaluation = kept()
    rows[3]["chosen_logprob_dpo"] += 9.0
    assert {text.partition(" is ")[0] for text in recomputed(RECIPE, rows, evaluation)} >= {"dpo: reward_margin"}


def test_an_evaluation_without_pairs_has_nothing_to_compute_anew() -> None:
    assert recomputed(RECIPE, [], {"models": {"base": {"perplexity": 3.0}}}) == []


@pytest.mark.parametrize("there", [True, False])
def test_data_that_are_gone_are_not_reachable_and_data_that_differ_are_changed(tmp_path: Path, there: bool) -> None:
    file = tmp_path / "d.jsonl"
    if there:
        file.write_text("other rows")
    digest = hashlib.sha256(b"rows").hexdigest()
    run = RecordedRun(run_id="1", tags={}, recipe=None, card=None, data=[(str(file), digest)], stages={})
    failed = {each.name: each.state for each in verify_run(run).failed()}
    assert failed == {"recipe.yaml": "missing", str(file): "changed" if there else "not reachable"}


def test_a_recipe_of_an_earlier_preflow_is_held_to_what_was_recorded() -> None:
    """It lacks a setting that came later; an edit of one that it has is found."""
    settings = RECIPE.model_dump(mode="json")
    del settings["evaluation"]["confidence"]
    tags = {"recipe_digest": json_digest(settings)}
    for text, state in ((written(settings), "ok"), (written({**settings, "seed": 43}), "changed")):
        run = RecordedRun(run_id="1", tags=tags, recipe=text, card=None, data=[], stages={})
        assert verify_run(run).below[0].state == state
    assert json_digest(yaml.safe_load(written(RECIPE.model_dump(mode="json")))) == RECIPE.settings_digest()


def written(settings: dict[str, Any]) -> str:
    """As MLflow writes it."""
    return str(yaml.safe_dump(settings, indent=2, default_flow_style=False))


def test_an_artifact_is_found_at_the_same_place_of_a_store_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFLOW_HOME", str(tmp_path))
    assert place_of("/gone/store/dpo/abc") == tmp_path / "store" / "dpo" / "abc"
    assert place_of(str(tmp_path)) == tmp_path


def test_a_check_is_plain_json() -> None:
    check = together("all", Check("a", "changed", "why"))
    assert check.to_json()["below"] == [{**asdict(Check("a", "changed", "why")), "below": []}]
