"""The weights that DPO starts from are those of the reference, number by number, whatever the log-probs say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import build
from preflow.config import Recipe
from preflow.dpo.start import load_start
from preflow.dpo.trainer import make_trainer
from preflow.dpo.weight_checks import check_identity, check_policy_weights, weight_digests
from preflow.errors import PolicyMismatchError, StoredValueError
from preflow.logprobs.identity import identify
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.adapters import new_adapter
from preflow.models.loading import LanguageModel, load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.models.resolve import ModelRef, resolve_model
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec
from preflow.stages import dpo as dpo_stage
from preflow.stages.dpo import run_dpo
from preflow.stages.reference import run_reference
from tests.conftest import make_model
from tests.fixtures.prepared_run import Run
from tests.unit.dpo.start_models import base, going_on, overwritten
from tests.unit.logprobs.stale_models import write_adapter
from tests.unit.support import recipe_for


def loaded(run: Run) -> dict[str, str]:
    return weight_digests(load_policy(run.base, run.sft.file("model"), run.recipe, choose_precision(run.recipe)))


def test_the_policy_of_a_trainer_holds_the_references_weights(prepared: Run, tmp_path: Path) -> None:
    """Two layers of seven matrices and two norms, two matrices more of which have an adapter each, and three others."""
    spec, reference = prepared.dpo(), loaded(prepared)
    pairs = read_pairs(spec.reference.file("train.parquet"))
    trainer = make_trainer(spec, going_on(prepared), load_tokenizer(spec.base, spec.recipe), pairs, tmp_path, Silent())
    assert check_policy_weights(trainer.model, reference) == len(reference)  # type: ignore[arg-type]
    assert any("lora_B" in name for name in reference)
    assert sum("lora_" not in name for name in reference) == 2 * 9 + 3  # embedding, last norm, head


@pytest.mark.parametrize("name", ["lora_A", "lora_B", "mlp.up_proj", "embed_tokens", "norm"])
def test_one_number_in_its_last_bit_is_seen(prepared: Run, name: str) -> None:
    policy, reference = going_on(prepared), loaded(prepared)
    parameter = next(p for n, p in policy.named_parameters() if name in n)
    with torch.no_grad():
        first = parameter.view(-1)[:1]
        first.copy_(torch.nextafter(first, torch.tensor([torch.inf])))
    with pytest.raises(PolicyMismatchError, match=name.replace(".", r"\.")):
        check_policy_weights(policy, reference)


@pytest.mark.parametrize("load", [overwritten, base])
def test_weights_that_are_not_the_sft_models_are_refused(prepared: Run, load: Callable[[Run], LanguageModel]) -> None:
    with pytest.raises(PolicyMismatchError, match="SFT adapter was overwritten"):
        check_policy_weights(load(prepared), loaded(prepared))


def test_a_fresh_adapter_over_the_reference_may_only_add_nothing(prepared: Run) -> None:
    reference = weight_digests(base(prepared))
    policy = overwritten(prepared)
    assert check_policy_weights(policy, reference) == len(reference)
    with torch.no_grad():
        next(p for n, p in policy.named_parameters() if "lora_B" in n)[0, 0] = 1e-9
    with pytest.raises(PolicyMismatchError, match=r"^1 of the policy's weights .*lora_B"):
        check_policy_weights(policy, reference)


def test_a_fresh_adapter_with_a_at_zero_adds_nothing_either(prepared: Run) -> None:
    reference = weight_digests(base(prepared))
    settings = prepared.recipe.dpo
    assert settings is not None
    policy = new_adapter(base(prepared), settings.model_copy(update={"init_lora_weights": "zero_a"}), 3)
    assert check_policy_weights(policy, reference) == len(reference)
    with torch.no_grad():
        next(p for n, p in policy.named_parameters() if "lora_A" in n)[0, 0] = 1e-9
    with pytest.raises(PolicyMismatchError, match=r"^1 of the policy's weights .*lora_B"):
        check_policy_weights(policy, reference)


def test_16_bit_weights_that_a_trainer_widens_stay_what_they_are(prepared: Run) -> None:
    narrow = base(prepared).bfloat16()
    assert weight_digests(narrow) == weight_digests(base(prepared).bfloat16().float())
    assert weight_digests(narrow) != weight_digests(base(prepared))


def test_large_weights_are_digested_in_parts(prepared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weight_digests(base(prepared))
    monkeypatch.setattr("preflow.dpo.weight_checks._TILE", 1000)
    assert weight_digests(base(prepared)) == whole


@pytest.mark.slow
def test_4_bit_weights_are_compared_too(prepared: Run, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    ref = resolve_model(Recipe(strategy="dpo", model_name=str(make_model(tmp_path / "base", width=64))), Silent())
    write_adapter(tmp_path / "sft" / "model", Path(ref.path), seed=1)
    recipe = recipe_for(ref, use_4bit=True)
    precision = choose_precision(recipe)
    one, other = (load_policy(ref, tmp_path / "sft" / "model", recipe, precision, trainable=t) for t in (False, True))
    reference = weight_digests(one)
    assert check_policy_weights(other, reference) == len(reference)
    packed = next(p for n, p in other.named_parameters() if "down_proj" in n and p.dtype == torch.uint8)
    packed.data.view(-1)[0] ^= 1
    with pytest.raises(PolicyMismatchError, match="down_proj"):
        check_policy_weights(other, reference)


def test_the_stage_checks_the_policys_weights(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that no log-prob shows: a number of an adapter in its last bit."""
    make = make_trainer

    def touched(*arguments: Any) -> Any:
        trainer: Any = make(*arguments)
        value = next(p for n, p in trainer.model.named_parameters() if "lora_B" in n).data.view(-1)[:1]
        value.copy_(torch.nextafter(value, torch.tensor([torch.inf])))
        return trainer

    monkeypatch.setattr(dpo_stage, "make_trainer", touched)
    with pytest.raises(PolicyMismatchError, match=r"^1 of the policy's weights .*lora_B"):
        run_dpo(prepared.dpo(), tmp_path, Silent())


def test_values_of_other_weights_are_refused_before_anything_is_loaded(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's values for the SFT model's: the files are other ones."""
    asked = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=None)
    wrong = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    monkeypatch.setattr("preflow.dpo.start.load_policy", None)
    with pytest.raises(StoredValueError, match="computed with no adapter weights, DPO loads adapter weights of digest"):
        run_dpo(prepared.dpo(reference=wrong), tmp_path / "out", Silent())


def identity_of(spec: DpoSpec, ref: ModelRef) -> Any:
    sft = spec.sft
    assert sft is not None
    return identify(ref, sft.file("model"), spec.recipe, choose_precision(spec.recipe))


def test_values_in_another_precision_are_refused(prepared: Run) -> None:
    spec = prepared.dpo()
    identity = identity_of(spec, prepared.base)
    check_identity(spec.reference, identity, "cpu/float32/float32")
    check_identity(spec.reference, identity, "cpu/float32/float32/mkldnn=tf32")  # the same dtypes
    with pytest.raises(StoredValueError, match="in cpu/float32/float32, DPO computes in cpu/bfloat16/bfloat16"):
        check_identity(spec.reference, identity, "cpu/bfloat16/bfloat16")


def test_an_artifact_that_names_no_weights_is_left_to_the_log_probs(prepared: Run, tmp_path: Path) -> None:
    other = build(tmp_path / "made", lambda out: (out / "train.parquet").touch())
    check_identity(other, identity_of(prepared.dpo(), prepared.base), "cpu/float32/float32")


def test_the_policy_that_the_stage_loads_is_the_reference(prepared: Run) -> None:
    spec = prepared.dpo()
    assert spec.recipe.dpo is not None
    policy = load_start(spec, spec.recipe.dpo, choose_precision(spec.recipe))
    assert check_policy_weights(policy, loaded(prepared)) > 0
