"""What the comparison of strategies shows, from what the stages wrote."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.strategies.side_by_side import (
    Strategies,
    as_markdown,
    difference,
    measures_of,
    models_of,
    print_strategies,
    sentences,
    table_rows,
)
from preflow.artifacts import Artifact, write_json

SHARE = {"value": 0.5, "low": 0.25, "high": 0.75}


def artifact(folder: Path, **files: Any) -> Artifact:
    folder.mkdir(parents=True)
    for name, value in files.items():
        write_json(folder / f"{name}.json", value)
    return Artifact(path=str(folder), digest="", bytes=0)


def evaluation(folder: Path, kl: float, right: list[bool], **measures: Any) -> Artifact:
    """Of one pair per prompt, whose chosen response has the higher mean log-prob where ``right``."""
    pairs = [
        {
            "id": f"pair {place}",
            "cluster": f"prompt {place}",
            "chosen_tokens": 2,
            "rejected_tokens": 4,
            "chosen_logprob_dpo": -4.0,  # -2 per token
            "rejected_logprob_dpo": -12.0 if each else -4.0,  # -3 or -1 per token
        }
        for place, each in enumerate(right)
    ]
    models = {
        "base": {"preference_accuracy": SHARE, "perplexity": 60.0},
        "sft": {"preference_accuracy": SHARE, "perplexity": 20.0},
        "dpo": {
            "preference_accuracy": SHARE,
            "kl_sft": {"value": kl, "se": 0.1},
            "kl_base": {"value": 30.0},
            **measures,
        },
    }
    gain = {"value": 0.25, "low": -0.125, "high": 0.5, "p": 0.5}
    report = {
        "models": models,
        "reference": "sft",
        "confidence": 0.95,
        "n_pairs": len(right),
        "comparison": {"preference_accuracy_gain": gain},
    }
    return artifact(folder, evaluation=report, pairs=pairs)


@pytest.fixture
def made(tmp_path: Path) -> Strategies:
    gain = {"value": 0.5, "low": 0.25, "high": 0.75}
    held_out = {"accuracy": {"value": 0.75, "low": 0.6, "high": 0.85}, "pairs": 40}
    return Strategies(
        recipe="mine",
        seed=0,
        dpo=artifact(tmp_path / "dpo", metrics={"dpo/steps": 12.0}),
        reward_model=artifact(tmp_path / "rewards", report={"held_out": held_out}),
        rlhf=artifact(
            tmp_path / "rlhf",
            metrics={"rloo/steps": 40.0},
            report={"held_out": {"prompts": 16, "reward_gain": gain}},
        ),
        dpo_evaluation=evaluation(tmp_path / "one", 0.5, [True, True, False, False], response_tokens=31.0),
        rlhf_evaluation=evaluation(tmp_path / "two", 1.5, [True, True, True, False], response_tokens=47.5),
        dpo_judged=artifact(tmp_path / "judged", judge={"win_rate": SHARE, "win_rate_lc": None}),
        rlhf_judged=artifact(tmp_path / "unfit", judge={"test": {"fit": False}}),
    )


def test_each_model_has_its_own_measures_and_the_start_stands_once(made: Strategies) -> None:
    models = models_of(made)
    assert list(models) == ["base", "SFT", "DPO", "RLHF"]
    assert (models["DPO"]["kl"]["value"], models["RLHF"]["kl"]["value"]) == (0.5, 1.5)
    assert (models["DPO"]["steps"], models["RLHF"]["steps"]) == (12.0, 40.0)
    assert models["DPO"]["win_rate"] == SHARE
    assert "win_rate" not in models["RLHF"], "its judge is unfit"
    rows = {row["measure"]: row for row in table_rows(made)}
    assert rows["tokens of an answer"] == {
        "measure": "tokens of an answer",
        "base": "",
        "SFT": "",
        "DPO": "31.0",
        "RLHF": "47.5",
    }
    assert rows["KL from the start"]["RLHF"] == "1.50 ± 0.10"
    assert "… at equal length" not in rows
    numbers = measures_of(made)
    assert numbers["strategies/response_tokens_rlhf"] == 47.5
    assert numbers["strategies/preference_accuracy_gain_dpo"] == 0.25


def test_both_are_paired_on_the_same_held_out_pairs(made: Strategies) -> None:
    """Of four pairs one changes from wrong to right: a quarter, which one prompt in four cannot show."""
    found = difference(made)
    assert found is not None
    assert (found.rows, found.prompts, found.better, found.worse, found.equal) == (4, 4, 1, 0, 3)
    assert found.difference.value == 0.25
    assert found.p == 1.0
    said = " ".join(sentences(made))
    assert "RLHF minus that of DPO on 4 pairs of 4 prompts: +0.250" in said
    assert "no difference that these pairs show" in said


def test_unequal_distance_from_the_start_is_said(made: Strategies, tmp_path: Path) -> None:
    assert "not equally far from their start (KL 0.50 and 1.50)" in " ".join(sentences(made))
    near = made.model_copy(update={"rlhf_evaluation": evaluation(tmp_path / "near", 0.9, [True])})
    assert "equally far" not in " ".join(sentences(near))


def test_without_pairs_there_is_no_difference(made: Strategies, tmp_path: Path) -> None:
    empty = made.model_copy(
        update={name: evaluation(tmp_path / name, 1.0, []) for name in ("dpo_evaluation", "rlhf_evaluation")}
    )
    assert difference(empty) is None


def test_terminal_and_markdown_show_the_same_rows(made: Strategies, capsys: pytest.CaptureFixture[str]) -> None:
    text = as_markdown(made)
    assert "| measure | base | SFT | DPO | RLHF |" in text
    print_strategies(made, Console(width=140))
    shown = capsys.readouterr().out
    for row in table_rows(made):
        assert f"| {' | '.join(row.values())} |" in text
        assert all(cell in shown for cell in row.values())
    assert str(made.rlhf.file("model")) in shown
