"""Speed and memory of steps of DPO and SFT at 1B parameters: TRL as shipped, and Preflow, in turn, in one run.

Each contender has a process of its own, with the whole model; all are made before any is measured, since a process that
has used a GPU cannot start others by a fork.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import bench_dpo, bench_sft
from bench.gpu.processes import in_child
from bench.gpu.workload import RowSet, Workload, demonstrations
from bench.parts.contenders import Apart, Contender, MatrixRate, plain_tokenizer, random_model
from preflow.config import Recipe
from preflow.data.tokens.tokenize import TokenizedDemonstration
from preflow.estimates.flops import shape_of
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.scoring import scores

OURS = "preflow"


@dataclass(frozen=True)
class Batches:
    """One set's part of the rows that the trainers hold.

    Attributes:
        rows: The set.
        first: Number of its first row.
        tokens: Tokens of a counted row, on average, prompts counted once.
        flops: Floating-point operations of each contender over the counted steps.
    """

    rows: RowSet
    first: int
    tokens: float
    flops: Mapping[str, float]

    def indices(self, step: int) -> list[int]:
        """Numbers of the rows of one batch; step 0 does not count."""
        start = self.first + step * self.rows.batch
        return list(range(start, start + self.rows.batch))


def run_dpo(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """TRL with a live reference, TRL with precomputed values, Preflow."""
    drawn = [each.pairs(work.model.vocab_size) for each in work.row_sets]
    pairs = in_child(work.start_method, partial(reference_values, work, [row for some in drawn for row in some]))
    names = (*bench_dpo.SHIPPED, OURS)
    contenders = {name: Apart(partial(_dpo_contender, work, pairs, name), work.start_method) for name in names}
    shape, first, sets = shape_of(work.model), 0, []
    for rows, some in zip(work.row_sets, drawn, strict=True):
        flops = bench_dpo.arithmetic(shape, some, work.precision, rows.batch)
        sets.append(Batches(rows, first, _mean([sum(map(len, row)) for row in some[rows.batch :]]), flops))
        first += len(some)
    yield from _measure("dpo", work, contenders, sets, out)


def run_sft(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """TRL as shipped, and Preflow."""
    drawn = [demonstrations(each.pairs(work.model.vocab_size)) for each in work.row_sets]
    everything = [row for some in drawn for row in some]
    contenders = {
        name: Apart(partial(_sft_contender, work, everything, name), work.start_method) for name in ("trl", OURS)
    }
    shape, first, sets = shape_of(work.model), 0, []
    for rows, some in zip(work.row_sets, drawn, strict=True):
        flops = bench_sft.arithmetic(shape, some, work.precision, rows.batch)
        sets.append(Batches(rows, first, _mean([len(row.input_ids) for row in some[rows.batch :]]), flops))
        first += len(some)
    yield from _measure("sft", work, contenders, sets, out)


def reference_values(work: Workload, rows: Sequence[bench_dpo.Tokens]) -> list[ScoredPair]:
    """Pairs with the base model's log-probs."""
    model = random_model(work.model, work.precision)
    values = scores(model, [(prompt, (chosen, rejected)) for prompt, chosen, rejected in rows], work.precision)
    return [
        ScoredPair(*row, chosen.tolist(), rejected.tolist(), "random")
        for row, (chosen, rejected) in zip(rows, values, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _recipe(strategy: str) -> Recipe:
    return Recipe.model_validate({"strategy": strategy, "model_name": "random", strategy: {}})


def _dpo_contender(work: Workload, pairs: list[ScoredPair], name: str) -> Contender:
    settings, model = _recipe("dpo").dpo, random_model(work.model, work.precision)
    assert settings is not None
    return bench_dpo.trainer_of(model, plain_tokenizer(), settings, pairs, name, work.precision)


def _sft_contender(work: Workload, rows: list[TokenizedDemonstration], name: str) -> Contender:
    settings, model = _recipe("sft").sft, random_model(work.model, work.precision)
    assert settings is not None
    return bench_sft.trainer_of(model, plain_tokenizer(), settings, rows, name, work.precision)


def _measure(
    stage: str, work: Workload, contenders: dict[str, Apart], sets: list[Batches], out: Path
) -> Iterator[dict[str, Any]]:
    """Figures of each set as soon as they are there, then a profile of one of Preflow's steps of each."""
    for one in contenders.values():
        one.wait()
    rate = MatrixRate(work.matrix, work.matrix, work.matrix, work.precision)
    for some in sets:
        for one in contenders.values():
            one.step(some.indices(0))  # compiles
            one.forget()
        for step in range(1, some.rows.steps + 1):
            rate.measure()
            for one in contenders.values():
                one.step(some.indices(step))
        yield {"rows": some.rows.name, **figures(contenders, some, rate.value())}
    for some in sets:
        found = contenders[OURS].ask("profile", some.indices(1))
        (out / f"profile_{stage}_{some.rows.name}.txt").write_text(found.pop("table"), encoding="utf-8")
        yield {"rows": some.rows.name, "profile": {name: round(value, 4) for name, value in found.items()}}


def figures(contenders: Mapping[str, Apart], some: Batches, rate: float) -> dict[str, Any]:
    """What was measured over the counted steps of one set.

    Args:
        contenders: That took them.
        some: The set.
        rate: Of products of large matrices, in operations per second.
    """
    count = some.rows.batch * some.rows.steps
    seconds = {name: sum(one.seconds) for name, one in contenders.items()}
    training = {name: one.ask("peak") for name, one in contenders.items()}
    whole = {name: one.ask("whole_peak") for name, one in contenders.items()}
    others = [name for name in contenders if name != OURS]
    ours = contenders[OURS]
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours.losses, contenders[others[-1]].losses, strict=True))
    return {
        "batch": some.rows.batch,
        "steps": some.rows.steps,
        "mean_tokens": round(some.tokens, 1),
        "rows_per_second": {name: round(count / value, 2) for name, value in seconds.items()},
        "step_seconds": {name: round(median(one.seconds), 4) for name, one in contenders.items()},
        "training_mib": {name: _mib(value) for name, value in training.items()},
        "peak_mib": {name: _mib(value) for name, value in whole.items()},
        "speedup": {name: round(seconds[name] / seconds[OURS], 3) for name in others},
        "arithmetic": {name: round(some.flops[name] / some.flops[OURS], 3) for name in others},
        "memory_ratio": {name: round(training[OURS] / max(1, training[name]), 3) for name in others},
        "tflops": round(some.flops[OURS] / seconds[OURS] / 1e12, 2),
        "matrix_tflops": round(rate / 1e12, 2),
        "share_of_matrix_rate": round(some.flops[OURS] / seconds[OURS] / rate, 3),
        "max_rel_loss_difference": gap,
    }


def _mib(value: int) -> int:
    return round(value / 2**20)
