"""What a tokenizer and a configuration say before weights are loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.config import Recipe
from preflow.errors import UnfitModelError
from preflow.models.loading import (
    beyond_positions,
    load_tokenizer,
    load_weights,
    model_config,
    position_limit,
    rotary_limit,
)
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef
from tests.conftest import make_model, make_tokenizer
from tests.unit.models.architectures import CONFIGS

RECIPE = Recipe(strategy="dpo", model_name="m")


def base(folder: Path) -> ModelRef:
    return ModelRef(name="m", path=str(folder), digest="")


def with_tokens(tiny: Path, folder: Path, *tokens: str) -> ModelRef:
    """The tiny model, with tokens that its embedding of 300 rows knows nothing of."""
    shutil.copytree(tiny, folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.save_pretrained(str(folder))
    return base(folder)


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    larger = with_tokens(tiny_folder, tmp_path / "a", "<|eot|>", "<|tool|>")
    with pytest.raises(
        UnfitModelError, match=r"tokens up to id 301 \(<\|eot\|>, <\|tool\|>\), but its embedding has 300"
    ):
        load_tokenizer(larger, RECIPE)


def test_placeholders_of_pictures_beyond_the_embedding_are_let_through(tiny_folder: Path, tmp_path: Path) -> None:
    """Gemma 3 with 1B parameters has 262,144 rows, and ``<image_soft_token>`` is token 262,144."""
    assert len(load_tokenizer(with_tokens(tiny_folder, tmp_path / "a", "<image_soft_token>"), RECIPE)) == 301


def test_a_tokenizer_that_cannot_be_read_names_its_folder(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(
        UnfitModelError, match=r"the tokenizer of m cannot be read from .*: .*Copy the tokenizer's files"
    ):
        load_tokenizer(base(tmp_path / "m"), RECIPE)


def test_an_architecture_that_transformers_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}', encoding="utf-8")
    with pytest.raises(UnfitModelError, match=r"no configuration can be read from .*nonesuch"):
        model_config(base(tmp_path), RECIPE)


def limit_of(folder: Path, tiny: Path, **changes: Any) -> int | None:
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return rotary_limit(base(folder), RECIPE)


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default"}, 512),
        ({"rope_type": "linear", "factor": 4.0}, 2048),
        ({"rope_type": "dynamic", "factor": 2.0}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        # Llama 3's 131,072 positions are what 8 times 8,192 were scaled and then trained to.
        (
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0},
            512,
        ),
    ],
)  # fmt: skip
def test_the_positions_of_rotary_models_count_how_they_are_stretched(
    tiny_folder: Path, tmp_path: Path, rope: dict[str, Any], limit: int
) -> None:
    assert limit_of(tmp_path / "m", tiny_folder, rope_parameters={"rope_theta": 10000.0, **rope}) == limit


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2", "mamba"])
def test_positions_are_rotary_learned_or_none(tmp_path: Path, name: str) -> None:
    if name == "mamba":
        (tmp_path / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    else:
        CONFIGS[name].save_pretrained(str(tmp_path))
    expected = {"llama": (256, None), "gemma3_text": (256, None), "gpt2": (None, 256), "mamba": (None, None)}
    assert (rotary_limit(base(tmp_path), RECIPE), position_limit(base(tmp_path), RECIPE)) == expected[name]


def test_rows_beyond_a_rotary_models_positions_are_a_warning_with_both_numbers() -> None:
    text = beyond_positions([10, 16, 17, 40], 16, "pairs", "m")
    assert text is not None
    assert text.startswith("2 of 4 pairs are longer than the 16 positions that m was trained on (longest: 40 tokens)")
    assert beyond_positions([10, 16], 16, "pairs", "m") is None
    assert beyond_positions([10, 16], None, "pairs", "m") is None


@pytest.mark.slow
def test_weights_that_were_stored_in_4_bits_compute_in_the_recipes_precision(tmp_path: Path) -> None:
    """Their configuration may name another dtype."""
    recipe = Recipe(strategy="dpo", model_name="m", use_4bit=True, bf16=False)
    precision = choose_precision(recipe)
    plain = load_weights(make_model(tmp_path / "wide", width=64), recipe, precision)
    plain.save_pretrained(str(tmp_path / "stored"))
    config = json.loads((tmp_path / "stored" / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["bnb_4bit_compute_dtype"] = "bfloat16"
    (tmp_path / "stored" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stored = load_weights(tmp_path / "stored", recipe, precision)
    dtypes = {module.compute_dtype for module in stored.modules() if hasattr(module, "compute_dtype")}
    assert dtypes == {torch.float32}
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(stored(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.slow  # a process of its own, as pytest has filters of its own
def test_an_old_name_that_a_library_uses_of_another_one_gives_no_warning(tiny_folder: Path) -> None:
    """PEFT asks for ``is_gradient_checkpointing`` when an adapter is put on a model; no trainer is imported."""
    code = (
        "import sys\n"
        "from preflow.config import Recipe\n"
        "from preflow.models.adapters import new_adapter\n"
        "from preflow.models.loading import load_weights\n"
        "from preflow.models.precision import choose_precision\n"
        "recipe = Recipe(strategy='dpo', model_name='m')\n"
        "new_adapter(load_weights(sys.argv[1], recipe, choose_precision(recipe)), recipe.dpo, 0)\n"
        "assert 'preflow.training.arguments' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error::FutureWarning", "-c", code, str(tiny_folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, "FutureWarning" in done.stderr) == (0, False), done.stderr
