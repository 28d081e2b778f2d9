"""What a recipe says of a distributed run is checked against the launch configuration that it names."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from preflow.config.checks.requirements import require_runnable
from preflow.config.loading import load_recipe
from preflow.errors import ConfigError


def test_a_launch_configuration_is_found_from_the_recipe_and_counts_by_what_it_says(tmp_path: Path) -> None:
    """Not by its path: an edited file is another training, the same file elsewhere is the same one."""
    identities = []
    for folder, text in (("a", "mixed_precision: no"), ("b", "mixed_precision: no"), ("c", "mixed_precision: bf16")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ddp.yaml").write_text(text, encoding="utf-8")
        file = tmp_path / folder / "recipe.yaml"
        file.write_text(
            "{strategy: sft, model_name: m, dataset: d.jsonl, launch: {config: ddp.yaml}}", encoding="utf-8"
        )
        recipe = load_recipe(file)
        assert recipe.launch.config == str(tmp_path / folder / "ddp.yaml")
        require_runnable(recipe)
        identities.append(recipe.identity_settings("sft")["launch"])
    assert identities[0] == identities[1] != identities[2]
    (tmp_path / "c" / "ddp.yaml").unlink()
    with pytest.raises(ConfigError, match=r"launch\.config is .*ddp\.yaml, which is no file"):
        require_runnable(load_recipe(tmp_path / "c" / "recipe.yaml"))


def judged(folder: Path, text: str, refusal: str | None) -> None:
    """A recipe that can run, or is refused so."""
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(folder / "recipe.yaml")
    with nullcontext() if refusal is None else pytest.raises(ConfigError, match=refusal):
        require_runnable(recipe)


@pytest.mark.parametrize(
    ("said", "bf16", "fits"),
    [
        ('mixed_precision: "no"', "true", True),
        ("mixed_precision: no", "false", True),
        ("num_machines: 1", "true", True),
        ("mixed_precision: bf16", "true", True),
        ("mixed_precision: bf16", "auto", True),  # judged on the machine that trains
        ("mixed_precision: bf16", "false", False),
        ("mixed_precision: fp16", "auto", False),
        ("fp16: true", "true", False),
    ],
)
def test_a_launch_in_another_precision_than_the_recipes_is_refused(
    tmp_path: Path, said: str, bf16: str, fits: bool
) -> None:
    (tmp_path / "ddp.yaml").write_text(said, encoding="utf-8")
    text = f"{{strategy: sft, model_name: m, dataset: d.jsonl, bf16: {bf16}, launch: {{config: ddp.yaml}}}}"
    judged(tmp_path, text, None if fits else r"says mixed_precision (bf16|fp16), but the recipe's bf16 is")


@pytest.mark.parametrize(
    ("kind", "budget", "fits"),
    [("DEEPSPEED", "512", False), ("DEEPSPEED", "null", True), ("FSDP", "512", True), ("MULTI_GPU", "512", True)],
)
def test_a_token_budget_under_deepspeed_is_refused_when_the_recipe_is_read(
    tmp_path: Path, kind: str, budget: str, fits: bool
) -> None:
    """Not after SFT and the reference, in the ranks."""
    (tmp_path / "launched.yaml").write_text(f"distributed_type: {kind}", encoding="utf-8")
    text = (
        "{model_name: m, sft: {dataset: s.jsonl}, launch: {config: launched.yaml}, "
        f"dpo: {{dataset: d.jsonl, max_tokens_per_batch: {budget}}}}}"
    )
    judged(tmp_path, text, None if fits else r"dpo\.max_tokens_per_batch is 512, but launch\.config .*DeepSpeed's")


def test_settings_of_deepspeed_in_a_second_file_are_refused(tmp_path: Path) -> None:
    """Neither the identity nor the precision would see what it says."""
    (tmp_path / "zero.yaml").write_text("deepspeed_config: {deepspeed_config_file: ds.json}", encoding="utf-8")
    text = "{strategy: sft, model_name: m, dataset: d.jsonl, launch: {config: zero.yaml}}"
    judged(tmp_path, text, r"zero\.yaml names deepspeed_config_file ds\.json: .* under deepspeed_config")
