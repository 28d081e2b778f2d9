"""Reference scoring: Preflow's packed batches into a store, and TRL's ``compute_ref_log_probs``; rows per second."""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.gpu.workload import Workload
from bench.parts.contenders import plain_tokenizer, random_model
from preflow.dpo.trainer import IDS, StoredReferenceTrainer, as_dataset
from preflow.logprobs.fill import fill
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.logprobs.store import LogprobStore
from preflow.models.packed.layout import PromptResponses
from preflow.models.scoring import scores
from preflow.observer import Silent

#: Rows of TRL's batches: its default, and one that fills a GPU.
_BATCHES = (8, 64)


def run(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """Each set in turn."""
    del out
    model = random_model(work.model, work.precision)
    for rows in work.row_sets:
        drawn = rows.draw(work.scored, work.model.vocab_size)
        with tempfile.TemporaryDirectory() as folder:
            yield {"rows": rows.name, **_rates(model, [(p, (c, r)) for p, c, r in drawn], work, Path(folder))}


def _rates(model: Any, groups: list[PromptResponses], work: Workload, folder: Path) -> dict[str, Any]:
    """Each way twice, of which the first time compiles and does not count."""
    trl = trl_forward(model, groups, work, folder)
    ways: dict[str, Callable[[Path], list[float]]] = {"preflow": partial(_stored, model, groups, work)}
    ways |= {f"trl_{size}": partial(_in_batches, trl, len(groups), size) for size in _BATCHES}
    seconds, values = {}, {}
    for name, way in ways.items():
        way(folder / name / "first")
        begin = time.perf_counter()
        values[name] = way(folder / name / "second")
        seconds[name] = time.perf_counter() - begin
    pairs = zip(values["preflow"], values[f"trl_{_BATCHES[0]}"], strict=True)
    return {
        "scored": len(groups),
        "rows_per_second": {name: round(len(groups) / value, 1) for name, value in seconds.items()},
        "speedup": {name: round(seconds[name] / seconds["preflow"], 3) for name in seconds if name != "preflow"},
        "max_rel_difference": max(abs(a - b) / max(abs(b), 1) for a, b in pairs),
    }


def _stored(model: Any, groups: list[PromptResponses], work: Workload, folder: Path) -> list[float]:
    """Sums of each response, computed into a new store and read back."""
    store = LogprobStore(folder, ReferenceIdentity({"weights": "random"}, "a random model", {}))
    fill(store, groups, lambda: lambda asked: scores(model, asked, work.precision), Silent(), "scoring")
    return [float(sum(values)) for group in groups for values in store.get(group)]


def _in_batches(trl: Callable[[list[int]], list[float]], count: int, size: int, folder: Path) -> list[float]:
    """TRL's in batches of so many rows; it stores nothing here."""
    del folder
    batches = (list(range(start, min(start + size, count))) for start in range(0, count, size))
    return [value for batch in batches for value in trl(batch)]


def trl_forward(
    model: Any, groups: list[PromptResponses], work: Workload, folder: Path
) -> Callable[[list[int]], list[float]]:
    """TRL's own collator and ``compute_ref_log_probs`` on rows of these numbers."""
    from trl.trainer.dpo_config import DPOConfig

    pairs = [ScoredPair(list(p), list(c), list(r), [0.0] * len(c), [0.0] * len(r), "-") for p, (c, r) in groups]
    config = DPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=work.precision.device.type == "cpu",
        bf16=True,
        max_length=None,
        report_to="none",
        precompute_ref_log_probs=True,
    )
    trainer: Any = StoredReferenceTrainer(
        model=model, args=config, train_dataset=as_dataset(pairs, None), processing_class=plain_tokenizer()
    )

    @torch.no_grad()
    def forward(some: list[int]) -> list[float]:
        rows = [{name: getattr(pairs[number], name) for name in IDS} for number in some]
        batch = trainer._prepare_inputs(trainer.data_collator(rows))
        with work.precision.autocast():
            chosen, rejected = trainer.compute_ref_log_probs(trainer.model.eval(), batch)
        return [value for both in zip(chosen.tolist(), rejected.tolist(), strict=True) for value in both]

    return forward
