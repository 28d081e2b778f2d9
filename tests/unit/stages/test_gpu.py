"""What only a CUDA device can show: FlexAttention compiled, bfloat16 steps, paged 8-bit optimizers, 4-bit weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import build
from preflow.config import Recipe
from preflow.models.packed import attention
from preflow.models.packed.layout import PackedRow, in_one_row
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from tests.conftest import make_model
from tests.fixtures.prepared_run import Run
from tests.unit.models.architectures import EDGES, rows_of
from tests.unit.support import recipe_for

pytestmark = pytest.mark.gpu
MISSING = "not run: bitsandbytes missing"


def row_of_edges() -> PackedRow:
    rows = rows_of([*EDGES, (100, 50, 60, False)], 0)
    return in_one_row([(r["prompt_ids"], [r["chosen_ids"], r["rejected_ids"]]) for r in rows], torch.device("cuda"))


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_compiled_flex_attention_equals_masks(
    window: int | None, softcap: float | None, dtype: torch.dtype, close: float
) -> None:
    """Values and gradients against SDPA under a mask of four dimensions, one group at a time."""
    torch.manual_seed(0)
    layout = row_of_edges().layout
    count = sum(layout.lengths)
    shapes = [(1, 4, count, 32), (1, 2, count, 32), (1, 2, count, 32)]
    q, k, v = (torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes)
    weight = torch.randn(1, count, 4, 32, device="cuda", dtype=dtype)
    results = []
    for out in (
        attention.flex(q, k, v, layout, 0.2, window, softcap, compiled=True),
        attention.per_group(q, k, v, layout, 0.2, window, softcap),
    ):
        results.append([out, *torch.autograd.grad((out * weight).float().sum(), (q, k, v))])
    for got, expected in zip(*results, strict=True):
        assert float((got - expected).float().norm()) <= close * float(expected.float().norm())


@pytest.mark.parametrize(
    "changes", [{"bf16": True}, {"bf16": True, "use_4bit": True}, {"bf16": True, "tuning": "full"}]
)
def test_the_stages_run_in_bfloat16_and_on_4_bit_weights(
    prepared: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """SFT, reference, proof and DPO; the policy at step 0 is the reference within bfloat16's tolerance."""
    if changes.get("use_4bit"):
        pytest.importorskip("bitsandbytes", reason=MISSING)
    folder = make_model(tmp_path / "wide", width=64)
    base = resolve_model(Recipe(strategy="dpo", model_name=str(folder)), Silent())
    given = {"recipe": recipe_for(base, **changes), "base": base, "data": prepared.data}
    sft = build(tmp_path / "sft", lambda out: run_sft(SftSpec.model_validate(given), out, Silent()))
    given["sft"] = sft
    spec = ReferenceSpec.model_validate(given)
    given["reference"] = build(tmp_path / "reference", lambda out: run_reference(spec, out, Silent()))
    aligned = build(tmp_path / "dpo", lambda out: run_dpo(DpoSpec.model_validate(given), out, Silent()))
    metrics = aligned.load("metrics.json")
    assert metrics["dpo/proof_policy_gap"] <= 1
    assert metrics["dpo/train_reward_margin"] > 0


def test_a_paged_8_bit_optimizer_steps(tmp_path: Path) -> None:
    """Large matrices' moments lie in pages that the driver moves; the losses are AdamW's within 1 %."""
    pytest.importorskip("bitsandbytes", reason=MISSING)
    from tests.unit.training.test_optimizers import bytes_held, trained_with

    paged, plain = (trained_with(each, tmp_path / each, lora=False) for each in ("paged_adamw_8bit", "adamw_torch"))
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (paged, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert bytes_held(paged) < 0.4 * bytes_held(plain)
    states = [each for state in paged.optimizer.optimizer.state.values() for each in state.values()]
    assert any(getattr(each, "is_paged", False) for each in states)
