"""Row by row the policy must give its stored log-probs, whatever it was loaded by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from preflow import distributed
from preflow.dpo import start_checks
from preflow.dpo.trainer import make_trainer, policy_scores
from preflow.errors import (
    NothingTrainableError,
    PolicyMismatchError,
)
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import LanguageModel, load_tokenizer
from preflow.models.precision import Precision, choose_precision
from preflow.observer import Silent
from tests.fixtures.prepared_run import Run
from tests.unit.dpo.start_models import adapter, base, going_on, half_precision, merged_with_new_adapter, overwritten

pytestmark = pytest.mark.slow  # each test makes and proves a model


def check_policy(run: Run, policy: LanguageModel, out: Path, score: Any = policy_scores) -> float:
    """The row-by-row proof of ``run_dpo`` for a policy loaded by any means."""
    spec, precision = run.dpo(), choose_precision(run.recipe)
    pairs = read_pairs(spec.reference.file("train.parquet"))
    tokenizer = load_tokenizer(spec.base, run.recipe)
    trainer = make_trainer(spec, policy, tokenizer, pairs, out, Silent())
    start_checks.check_trainable(trainer.model)  # type: ignore[arg-type]
    return start_checks.check_policy(
        pairs, lambda chunk: score(trainer, chunk, precision), precision.compute, 8, Silent(), spec.reference
    )


@pytest.mark.parametrize("load", [going_on, merged_with_new_adapter])
def test_right_ways_are_proven(prepared: Run, tmp_path: Path, load: Callable[[Run], LanguageModel]) -> None:
    assert check_policy(prepared, load(prepared), tmp_path) <= 1


@pytest.mark.parametrize(("room", "several"), [(3, False), (0, False), (3, True)])
def test_the_policy_check_halves_its_batch_when_out_of_memory(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, several: bool
) -> None:
    """From eight pairs to two, every pair proven once. An error where not even one fits, and in several processes,
    which go through the batches together.
    """
    monkeypatch.setattr(distributed, "is_distributed", lambda: several)
    sizes, told, notes = list[int](), list[int](), list[str]()

    def short_of_memory(trainer: Any, chunk: Any, precision: Precision) -> Any:
        if len(chunk) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        sizes.append(len(chunk))
        return policy_scores(trainer, chunk, precision)

    monkeypatch.setattr(Silent, "progress", lambda self, done, total, what: told.append(done))
    monkeypatch.setattr(Silent, "note", lambda self, message: notes.append(message))
    if several or not room:
        with pytest.raises(torch.OutOfMemoryError):
            check_policy(prepared, going_on(prepared), tmp_path, short_of_memory)
        return
    assert check_policy(prepared, going_on(prepared), tmp_path, short_of_memory) <= 1
    count = len(read_pairs(prepared.dpo().reference.file("train.parquet")))
    assert sum(sizes) == told[-1] == count
    assert set(sizes[:-1]) == {2}
    assert notes == [f"dpo: out of memory proving {tried} pairs at once; trying {tried // 2}" for tried in (8, 4)]


@pytest.mark.parametrize("load", [overwritten, half_precision, base])
def test_policies_that_are_not_the_sft_model_are_refused(
    prepared: Run, tmp_path: Path, load: Callable[[Run], LanguageModel]
) -> None:
    with pytest.raises(PolicyMismatchError, match=r"p\.jsonl:\d+ (chosen|rejected)"):
        check_policy(prepared, load(prepared).requires_grad_(True), tmp_path)


def test_an_adapter_loaded_for_inference_is_refused(prepared: Run, tmp_path: Path) -> None:
    policy = peft.PeftModel.from_pretrained(base(prepared), adapter(prepared), is_trainable=False)
    with pytest.raises(NothingTrainableError, match="is_trainable=True"):
        check_policy(prepared, policy, tmp_path)
