"""The arithmetic changes behind the store's back, and no value of another one is served or stored."""

from pathlib import Path
from typing import Any

import pytest
import torch

import preflow
from preflow.config import Recipe
from preflow.errors import CodeChangedError, ModelError
from preflow.logprobs import identity
from preflow.models.loading import load_policy
from preflow.models.precision import choose_precision
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.stages import reference
from tests.conftest import make_model
from tests.unit.logprobs.stale_models import GROUPS, StaleModelFixture, write_adapter
from tests.unit.source_copies import SourceCopy
from tests.unit.support import recipe_for

pytestmark = pytest.mark.slow  # each test fills a store with a model's forwards


def test_another_dtype_computes_every_row_once(stale_model: StaleModelFixture) -> None:
    stale_model.recipe_changes["bf16"] = True
    assert stale_model.ask() == len(GROUPS)
    assert stale_model.ask(compare=False) == 0
    stale_model.recipe_changes["bf16"] = False
    assert stale_model.ask() == 0


@pytest.mark.slow
def test_another_quantization_computes_every_row_once(tmp_path: Path) -> None:
    """bitsandbytes 0.50 packs weights for inference on the CPU in blocks of 64: narrower ones fail there."""
    pytest.importorskip("bitsandbytes")
    made = StaleModelFixture(tmp_path)
    make_model(made.base, width=64)
    write_adapter(made.model, made.base, seed=1)
    computed = []
    for use_4bit in (False, True, True, False):
        made.recipe_changes["use_4bit"] = use_4bit
        computed.append(made.ask())
    assert computed == [len(GROUPS), len(GROUPS), 0, 0]


@pytest.mark.parametrize("name", ["code", "torch", "transformers", "peft", "bitsandbytes", "matmul", "attention"])
def test_another_computation_shares_nothing(originals: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    base = resolve_model(Recipe(strategy="dpo", model_name=str(originals / "base")), Silent())
    recipe = recipe_for(base)
    precision = choose_precision(recipe)
    before, values = identity.identify(base, None, recipe, precision).digest(), identity.computation_identity("cpu")
    assert name in values
    monkeypatch.setattr(identity, "computation_identity", lambda _label: {**values, name: "another"})
    assert identity.identify(base, None, recipe, precision).digest() != before


def test_an_edited_forward_shares_nothing(
    stale_model: StaleModelFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = SourceCopy(tmp_path)
    with copy.edited("preflow/models/scoring.py", "return token_logprobs(", "return 2 * token_logprobs("):
        monkeypatch.setattr(identity, "code_digest", copy.graph().digest)
        assert stale_model.ask() == len(GROUPS)


def test_code_that_was_changed_while_it_runs_is_refused(
    stale_model: StaleModelFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values would be stored as those of what the file says now."""
    monkeypatch.setattr(preflow, "STARTED_NS", 0)
    with pytest.raises(CodeChangedError, match=r"preflow/.*\.py was changed at .*Start again"):
        stale_model.ask()


@pytest.mark.parametrize("backend", ["cuda", "mkldnn"])
def test_tf32_set_the_new_way_is_in_the_identity(backend: str) -> None:
    """As torch recommends it; reading it the old way then raises."""
    before, matmul = identity.computation_identity("cpu"), getattr(torch.backends, backend).matmul
    was = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if backend == "cuda" else "bf16"
    try:
        assert identity.computation_identity("cpu") != before
    finally:
        matmul.fp32_precision = was


def test_switches_of_torch_are_in_the_identity() -> None:
    before = identity.computation_identity("cpu")
    torch.set_float32_matmul_precision("high")
    try:
        assert identity.computation_identity("cpu") != before
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        assert identity.computation_identity("cpu") != before
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
    assert identity.computation_identity("cpu") == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"), ("DNNL_DEFAULT_FPMATH_MODE", "TF32"), ("NVIDIA_TF32_OVERRIDE", "1")],
)
def test_an_environment_that_coarsens_products_shares_nothing(
    stale_model: StaleModelFixture, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert stale_model.ask(compare=False) == len(GROUPS)
    monkeypatch.delenv(name)
    assert stale_model.ask() == 0


def test_precision_lowered_in_the_run_is_not_stored(
    stale_model: StaleModelFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a library may do when it is imported: after the store was opened, before the first forward."""
    stale_model.groups = [([8, 8, i], ([9, 9], [7])) for i in range(3)]

    def load_and_lower(*arguments: Any, **options: Any) -> Any:
        torch.set_float32_matmul_precision("high")
        return load_policy(*arguments, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(reference, "load_policy", load_and_lower)
            with pytest.raises(
                ModelError, match=r"precision changed from cpu/float32/float32 to cpu/float32/float32/cuda=tf32"
            ):
                stale_model.ask()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert stale_model.ask() == 3


def test_a_callers_autocast_does_not_reach_into_float32(stale_model: StaleModelFixture) -> None:
    stale_model.groups = [([8, 8, i], ([9, 9], [7])) for i in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stale_model.ask(compare=False) == 3
    assert stale_model.ask() == 0
