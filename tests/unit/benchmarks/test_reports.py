"""What the benchmarks say of made-up measurements: the figures that people compare, by name, in the last line."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import bench_dpo, bench_sft
from bench.parts.contenders import Contender
from preflow.data.rows import Source
from preflow.data.tokens.tokenize import TokenizedDemonstration
from preflow.estimates.flops import forward_flops, shape_of
from preflow.models.precision import Precision

FLOAT32 = Precision(torch.device("cpu"), torch.float32, torch.float32)
BFLOAT16 = Precision(torch.device("cpu"), torch.bfloat16, torch.bfloat16)


def measured(seconds: list[float], peak: int, losses: list[float]) -> Any:
    """A contender whose steps took so long."""
    return SimpleNamespace(seconds=seconds, work=[2 * s for s in seconds], losses=losses, ask=lambda what: peak)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    values: dict[str, float] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return values


def test_dpo(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps of 1 and 3 s against 7 and 15 s: 22 / 4 together, 7 and 5 each; 8 operations in 4 s at rate 4: half.

    The arithmetic of the drawn pairs gives 40 / 8, that of all pairs 66 / 11.
    """
    contenders = {
        "live": measured([7.0, 15.0], 800, [1.0, 2.0]),
        "precomputed": measured([4.0, 4.0], 400, [1.0, 2.0]),
        "preflow": measured([1.0, 3.0], 200, [1.0, 2.002]),
    }
    flops = {"live": 40.0, "precomputed": 20.0, "live_kept": 30.0, "precomputed_kept": 10.0, "preflow": 8.0}
    everything = {**dict.fromkeys(flops, 33.0), "live": 66.0, "preflow": 11.0}
    bench_dpo.report(contenders, flops, everything, 4.0, 1e-6, size=4)
    printed = capsys.readouterr().out
    assert "against live: 5.50 (median of the steps' own ratios 6.00)" in printed
    assert "gives 5.00 (6.00 on all pairs of the data)" in printed
    values = json.loads(printed.strip().splitlines()[-1])
    assert values["ratio_vs_live"] == 5.5
    assert values["median_ratio_vs_live"] == 6.0
    assert values["share_of_flop_bound_vs_live"] == 1.1
    assert values["ratio_vs_precomputed"] == 2.0
    assert (values["memory_ratio_vs_live"], values["memory_ratio_vs_precomputed"]) == (0.25, 0.5)
    assert values["share_of_matrix_rate"] == 0.5
    assert values["max_rel_loss_difference"] == pytest.approx(0.001)
    assert values["max_rel_logp_difference"] == 1e-6


def test_dpo_arithmetic_counts_what_trl_computes_again() -> None:
    """A forward more with a live reference, and one of the layers where activations are computed again."""
    shape: Any = shape_of(bench_dpo.ONE_BILLION)
    pairs = [([1] * 10, [2] * 5, [3] * 8)] * 4
    flops = bench_dpo.arithmetic(shape, [*pairs, *pairs], FLOAT32, size=4)  # of these four count
    padded = bench_dpo.padded_batch([(10, 5, 8)] * 4)
    assert (padded.tokens, padded.attended, padded.head_positions) == (8 * 18, 8 * 18 * 18, 8 * 17)
    reference = forward_flops(shape, padded)
    assert flops["live"] - flops["precomputed"] == pytest.approx(reference)
    assert flops["live_kept"] - flops["precomputed_kept"] == pytest.approx(reference)
    head = 2 * shape.vocabulary * shape.hidden * padded.head_positions
    again = flops["precomputed"] - flops["precomputed_kept"]
    assert again == pytest.approx(reference - head, rel=0.02)  # the adapter's own
    assert flops["preflow"] < flops["precomputed_kept"] / 2
    # In bfloat16 TRL's head computes its logits again: one product more of what Preflow scores.
    more = bench_dpo.arithmetic(shape, [*pairs, *pairs], BFLOAT16, size=4)["preflow"] - flops["preflow"]
    assert more == pytest.approx(2 * shape.vocabulary * shape.hidden * 4 * (5 + 8))


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
def test_a_step_computes_in_the_dtype_of_its_precision(precision: Precision) -> None:
    """As accelerate wraps a model's forward, which nothing wraps here."""
    seen: list[bool] = []
    weight = torch.nn.Parameter(torch.ones(3))

    def compute_loss(model: Any, batch: Any) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return weight.sum()

    trainer = SimpleNamespace(
        data_collator=list, train_dataset=[1, 2], _prepare_inputs=list, compute_loss=compute_loss, model=None
    )
    optimizer = torch.optim.SGD([weight], lr=1.0)
    *_, loss = Contender(trainer, optimizer, precision, keeps_memory=False).step([0, 1])
    assert seen == [precision is BFLOAT16] * 2
    assert loss == 0.0, "the second of two steps of 1 each"


def test_sft(capsys: pytest.CaptureFixture[str]) -> None:
    contenders = {
        "trl": measured([4.0, 8.0], 900, [1.0, 2.0]),
        "trl_kept": measured([3.0, 6.0], 1000, [1.0, 2.0]),
        "preflow": measured([1.0, 2.0], 300, [1.0, 2.0]),
    }
    row = TokenizedDemonstration([1, 2], [False, True], Source("-", 1))
    bench_sft.report(contenders, [row] * 24, {"trl": 6.0, "trl_kept": 4.0, "preflow": 2.0})
    values = last_line(capsys)
    assert (values["ratio_vs_trl"], values["ratio_vs_trl_kept"]) == (4.0, 3.0)
    assert (values["memory_ratio_vs_trl"], values["memory_ratio_vs_trl_kept"]) == (0.333, 0.3)
    assert values["share_of_flop_bound_vs_trl"] == pytest.approx(4 / 3, abs=1e-3)
    assert values["max_rel_loss_difference"] == 0
