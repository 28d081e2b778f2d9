"""Ways in which files of a model change behind the store's back: those that change weights, and those that do not."""

import json
import os
import shutil
import time

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from preflow.config import Recipe
from preflow.environment import digests_folder
from preflow.fingerprints import files
from preflow.models.loading import load_policy
from preflow.models.precision import Precision, choose_precision
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from tests.conftest import make_model
from tests.unit.logprobs.stale_hub import (
    edited_in_the_hub_cache_before_another_revision_came,
    hub_cache_copied,
    hub_cache_linked_anew,
)
from tests.unit.logprobs.stale_models import StaleModelFixture, change_json, edit, louder, write_adapter

CPU = Precision(torch.device("cpu"), torch.float32, torch.float32)


def retrained_into_the_same_folder(b: StaleModelFixture) -> None:
    shutil.rmtree(b.model)
    write_adapter(b.model, b.base, seed=7)


def overwritten_file_by_file(b: StaleModelFixture) -> None:
    write_adapter(b.model, b.base, seed=7)


def edited_in_place_with_the_same_size_and_time(b: StaleModelFixture) -> None:
    edit(b.weights, louder)


def base_edited_in_place_with_the_same_size_and_time(b: StaleModelFixture) -> None:
    edit(b.base / "model.safetensors", louder)


def one_weight(b: StaleModelFixture) -> None:
    def nudge(values: torch.Tensor) -> torch.Tensor:
        values.view(-1)[0] += 1.0
        return values

    edit(b.weights, nudge)


def adapter_files_swapped(b: StaleModelFixture) -> None:
    other = b.folder / "other" / "model" / b.weights.name
    for source, target in ((b.weights, "held"), (other, b.weights.name)):
        source.rename(b.model / target)
    (b.model / "held").rename(other)


def folders_swapped(b: StaleModelFixture) -> None:
    b.model.rename(b.folder / "held")
    (b.folder / "other" / "model").rename(b.model)


def other_file_put_in_its_place_with_the_old_times(b: StaleModelFixture) -> None:
    stat, other = b.weights.stat(), b.folder / "other" / "model" / b.weights.name
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(b.weights)


def hard_link_to_another_file(b: StaleModelFixture) -> None:
    b.weights.unlink()
    b.weights.hardlink_to(b.folder / "other" / "model" / b.weights.name)


def link_turned_to_another_folder(b: StaleModelFixture) -> None:
    b.model.rename(b.folder / "real")
    b.model.symlink_to(b.folder / "real")
    b.ask()
    b.model.unlink()
    b.model.symlink_to(b.folder / "other" / "model")


def link_of_the_file_turned(b: StaleModelFixture) -> None:
    b.weights.rename(b.folder / "real.safetensors")
    b.weights.symlink_to(b.folder / "real.safetensors")
    b.ask()
    b.weights.unlink()
    b.weights.symlink_to(b.folder / "other" / "model" / b.weights.name)


def adapter_scaled_by_its_config(b: StaleModelFixture) -> None:
    change_json(b.model / "adapter_config.json", lora_alpha=64)


def base_config_changed(b: StaleModelFixture) -> None:
    change_json(b.base / "config.json", rms_norm_eps=0.3)


def rope_changed(b: StaleModelFixture) -> None:
    change_json(b.base / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 3.0})


def merged_into_the_base(b: StaleModelFixture) -> None:
    """The adapter's folder becomes full weights: the merged model."""
    recipe = b.recipe
    base = resolve_model(Recipe(strategy="dpo", model_name=str(b.base)), Silent())
    merged = load_policy(base, b.model, recipe, choose_precision(recipe)).merge_and_unload()
    shutil.rmtree(b.model)
    merged.save_pretrained(str(b.model))


def full_weights_of_another_model(b: StaleModelFixture) -> None:
    shutil.rmtree(b.model)
    make_model(b.model, seed=5)
    b.ask()
    shutil.rmtree(b.model)
    make_model(b.model, seed=6)


def clock_that_went_back(b: StaleModelFixture) -> None:
    edit(b.weights, louder)
    os.utime(b.weights, (0, 0))


def file_from_the_future(b: StaleModelFixture) -> None:
    edit(b.weights, louder)
    os.utime(b.weights, (time.time() + 10**6,) * 2)


def memory_of_digests_damaged(b: StaleModelFixture) -> None:
    edit(b.weights, louder)
    for record in digests_folder().glob("*.json"):
        record.write_text('{"stamp": [1', encoding="utf-8")


def memory_of_another_file(b: StaleModelFixture) -> None:
    """The record of the other adapter's file put where this one's belongs."""
    memory = files.DigestCache(digests_folder())
    memory.digest(b.folder / "other" / "model" / b.weights.name)
    edit(b.weights, louder)
    records = {json.loads(r.read_text())["path"]: r for r in digests_folder().glob("*.json")}
    mine, theirs = records[str(b.weights)], records[str(b.folder / "other" / "model" / b.weights.name)]
    shutil.copy(theirs, mine)


def base_link_turned_to_another_model(b: StaleModelFixture) -> None:
    b.base.rename(b.folder / "real")
    b.base.symlink_to(b.folder / "real")
    assert b.ask() == 0, "the same weights under another path"
    b.base.unlink()
    make_model(b.folder / "newer", seed=9)
    b.base.symlink_to(b.folder / "newer")


def shard_in_a_folder_below(b: StaleModelFixture) -> None:
    """Named by the index, where a pattern over the model's folder does not see it; a stray file lies where it does."""
    (b.base / "part").mkdir()
    shard = b.base / "part" / "model-00001-of-00001.safetensors"
    shutil.copy(b.base / "model.safetensors", b.base / "extra.safetensors")
    (b.base / "model.safetensors").rename(shard)
    names = dict.fromkeys(load_file(shard), "part/model-00001-of-00001.safetensors")
    (b.base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    b.ask()
    edit(shard, louder)


def attention_set_in_the_config(b: StaleModelFixture) -> None:
    change_json(b.base / "config.json", attn_implementation="eager")


def ropes_stretched(b: StaleModelFixture) -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    change_json(b.base / "config.json", rope_parameters=rope)


def adapter_on_other_layers(b: StaleModelFixture) -> None:
    change_json(b.model / "adapter_config.json", rank_pattern={}, layers_to_transform=[0])


def weights_in_two_files(b: StaleModelFixture) -> None:
    """Other weights, sharded, beside nothing of the first ones."""
    other = make_model(b.folder / "newer", seed=9)
    model = load_policy(resolve_model(Recipe(strategy="dpo", model_name=str(other)), Silent()), None, b.recipe, CPU)
    (b.base / "model.safetensors").unlink()
    model.save_pretrained(str(b.base), max_shard_size="20KB")
    assert len(list(b.base.glob("model-*.safetensors"))) > 1


EVERY_ROW = [
    retrained_into_the_same_folder,
    overwritten_file_by_file,
    edited_in_place_with_the_same_size_and_time,
    base_edited_in_place_with_the_same_size_and_time,
    one_weight,
    adapter_files_swapped,
    folders_swapped,
    other_file_put_in_its_place_with_the_old_times,
    hard_link_to_another_file,
    link_turned_to_another_folder,
    link_of_the_file_turned,
    adapter_scaled_by_its_config,
    base_config_changed,
    rope_changed,
    merged_into_the_base,
    full_weights_of_another_model,
    clock_that_went_back,
    file_from_the_future,
    memory_of_digests_damaged,
    memory_of_another_file,
    base_link_turned_to_another_model,
    edited_in_the_hub_cache_before_another_revision_came,
    hub_cache_copied,
    hub_cache_linked_anew,
    shard_in_a_folder_below,
    attention_set_in_the_config,
    ropes_stretched,
    adapter_on_other_layers,
    weights_in_two_files,
]


def tokenizer_replaced(b: StaleModelFixture) -> None:
    (b.base / "tokenizer.json").write_text((b.base / "tokenizer.json").read_text().replace('"!"', '"§"'))


def template_changed(b: StaleModelFixture) -> None:
    (b.base / "chat_template.jinja").write_text("{{ messages }}")


def base_named_otherwise(b: StaleModelFixture) -> None:
    change_json(b.model / "adapter_config.json", base_model_name_or_path="elsewhere")


def copied_with_new_times(b: StaleModelFixture) -> None:
    shutil.copytree(b.model, b.folder / "copied" / "model")
    b.sft = "copied"


def training_log_beside_the_model(b: StaleModelFixture) -> None:
    (b.folder / b.sft / "training.json").write_text("[]")


def memory_lost(b: StaleModelFixture) -> None:
    shutil.rmtree(digests_folder())


def tokenizer_with_more_tokens(b: StaleModelFixture) -> None:
    """No row of these uses them."""
    tokenizer = AutoTokenizer.from_pretrained(str(b.base))
    tokenizer.add_tokens(["<extra>", "<more>"])
    tokenizer.save_pretrained(str(b.base))


NO_ROW = [
    tokenizer_replaced,
    template_changed,
    base_named_otherwise,
    copied_with_new_times,
    training_log_beside_the_model,
    memory_lost,
    tokenizer_with_more_tokens,
]
