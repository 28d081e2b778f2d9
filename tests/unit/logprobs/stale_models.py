"""A base model, an adapter over it, and a store that is asked for both: for tests that change files behind its back."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.dpo.start_checks import independent_logprobs
from preflow.logprobs.identity import identify
from preflow.maths.agreement import agree
from preflow.models.adapters import new_adapter
from preflow.models.loading import load_policy
from preflow.models.packed.layout import PromptResponses
from preflow.models.precision import choose_precision
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.stages.reference import score_groups
from tests.unit.support import Recorder, recipe_for

GROUPS: list[PromptResponses] = [([1, 5 + i, 9], ([20 + i, 21, 1], [40, 41 + i, 42, 1])) for i in range(4)]


@dataclass
class StaleModelFixture:
    """A base model, an adapter over it, and a store that is asked for both."""

    folder: Path
    recipe_changes: dict[str, Any] = field(default_factory=dict)
    groups: list[PromptResponses] = field(default_factory=lambda: list(GROUPS))
    sft: str = "sft"
    seen: set[str] = field(default_factory=set)

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def model(self) -> Path:
        return self.folder / self.sft / "model"

    @property
    def weights(self) -> Path:
        return self.model / "adapter_model.safetensors"

    @property
    def recipe(self) -> Recipe:
        ref = resolve_model(Recipe(strategy="dpo", model_name=str(self.base)), Silent())
        return recipe_for(ref, **self.recipe_changes)

    def ask(self, *, compare: bool = True) -> float:
        """Score through the store, compare with the model as it is now, and give the rows computed."""
        recipe = self.recipe
        base = resolve_model(Recipe(strategy="dpo", model_name=str(self.base)), Silent())
        sft = Artifact(path=str(self.folder / self.sft), digest="the same in every run", bytes=0)
        recorder, precision = Recorder(), choose_precision(recipe)
        store = score_groups(recipe, base, sft, self.groups, recorder, "test")
        model = load_policy(base, self.model, recipe, precision) if compare else None
        for group in self.groups if compare else ():
            for values, response in zip(store.get(group), group[1], strict=True):
                expected = independent_logprobs(model, (group[0], response), precision)
                assert agree(values, expected, precision.compute), "a stale value was served"
        return recorder.values["scoring/rows_computed"]


class IdentityFixture(StaleModelFixture):
    """The same without a forward: a store that computes every row of an identity that it has not seen."""

    def ask(self, *, compare: bool = True) -> float:
        """Give the rows that a store would compute for the model as it is now; nothing is scored or compared."""
        recipe = self.recipe
        base = resolve_model(Recipe(strategy="dpo", model_name=str(self.base)), Silent())
        digest = identify(base, self.model, recipe, choose_precision(recipe)).digest()
        known = digest in self.seen
        self.seen.add(digest)
        return 0.0 if known else float(len(self.groups))


def write_adapter(folder: Path, base: Path, seed: int) -> None:
    """An adapter with weights that change the model's log-probs."""
    ref = resolve_model(Recipe(strategy="dpo", model_name=str(base)), Silent())
    recipe = recipe_for(ref)
    assert recipe.dpo is not None
    model = new_adapter(load_policy(ref, None, recipe, choose_precision(recipe)), recipe.dpo, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(str(folder))


def edit(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the last tensor of a file, in place: same size, same inode, mtime set back."""
    before = path.stat()
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name] = change(tensors[name])
    partial = path.with_name("partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    data = partial.read_bytes()
    partial.unlink()
    assert len(data) == before.st_size
    with path.open("r+b") as handle:
        handle.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def louder(values: torch.Tensor) -> torch.Tensor:
    return values * 3 + 0.5


def change_json(path: Path, **entries: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **entries}), encoding="utf-8")
