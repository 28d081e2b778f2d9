"""Recipe and data are settled before anything starts."""

from pathlib import Path

import pytest

from flows.running.preparation import prepare_run
from preflow.errors import ConfigError, DataFileError, MissingDependencyError, UnfitModelError


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "dpo.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    path = tmp_path / "mine.yaml"
    path.write_text("model_name: m\nsft: {dataset: sft.jsonl}\ndpo: {dataset: dpo.jsonl}\n")
    return path


def test_a_prepared_run_has_the_data_with_their_digests(recipe: Path) -> None:
    prepared = prepare_run(recipe, {"dpo.eval_split": "0.25"})
    assert prepared.recipe.name == "mine"
    assert [Path(s.path).name for s in prepared.sources.demonstrations] == ["sft.jsonl"]
    assert [Path(s.path).name for s in prepared.sources.preferences] == ["dpo.jsonl"]
    assert (prepared.sources.sft_eval_split, prepared.sources.dpo_eval_split) == (0.1, 0.25)
    assert prepared.runs("sft")
    assert prepared.runs("dpo")


def test_one_strategy_has_one_training_stage(recipe: Path) -> None:
    recipe.write_text("strategy: dpo\nmodel_name: m\ndataset: dpo.jsonl\n")
    prepared = prepare_run(recipe)
    assert not prepared.runs("sft")
    assert prepared.sources.demonstrations == ()


def test_what_is_missing_is_named(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="model_name"):
        prepare_run(recipe, {"model_name": None})
    with pytest.raises(DataFileError, match=r"absent\.jsonl"):
        prepare_run(recipe, {"dpo.dataset": "absent.jsonl"})
    with pytest.raises(MissingDependencyError, match="unsloth"):
        prepare_run(recipe, {"provider": "unsloth"})


def test_a_start_from_an_aligned_model_is_reported(recipe: Path, tmp_path: Path) -> None:
    """It is allowed, but a wrong folder must not pass unseen."""
    model = tmp_path / "model"
    model.mkdir()
    for stage, said in (("dpo", True), ("sft", False)):
        (model / "preflow.json").write_text(f'{{"stage": "{stage}"}}')
        lines = [line for line in prepare_run(recipe, {"model_name": str(model)}).advice if "DPO stage" in line]
        assert bool(lines) == said


def test_a_model_that_cannot_be_trained_is_refused_before_the_data_are_read(recipe: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (tmp_path / "dpo.jsonl").unlink()
    with pytest.raises(UnfitModelError, match="is a folder without a tokenizer"):
        prepare_run(recipe, {"model_name": "model"})
    (model / "tokenizer.json").touch()
    with pytest.raises(DataFileError, match=r"dpo\.jsonl"):
        prepare_run(recipe, {"model_name": "model"})
