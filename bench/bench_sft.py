"""Speed and memory of an SFT step: TRL's SFTTrainer as shipped (padded) and Preflow, in turn, at the same loss curve.

``python -m bench.bench_sft [--data FILE] [--steps N] [--quick]`` trains the same adapter (rank 16) of SmolLM2-135M on
the same shuffled batches of 8, each twice (the second counts), and prints tokens per second, peak memory, the ratios
that arithmetic alone gives, and last one JSON line. Without a file, the demo's demonstrations are used.

``trl`` has TRL's defaults, by which activations are computed again in the backward (``gradient_checkpointing``);
``trl_kept`` has that switched off, as it is off in Preflow.
"""

import json
import logging
import random
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from trl.trainer.sft_config import SFTConfig

from bench.parts.contenders import Apart, Contender
from preflow.config import Recipe
from preflow.config.training import SftSettings
from preflow.data.conversion import RowProblem, to_demonstration
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import TokenizedDemonstration, tokenize_demonstrations
from preflow.estimates.flops import ModelShape, TokenWork, shape_of, training_flops
from preflow.estimates.training import head_products
from preflow.estimates.workload import batch_work
from preflow.models.adapters import inner_model, new_adapter
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import load_tokenizer, load_weights
from preflow.models.packed.layout import IGNORED, shared_prefix_length
from preflow.models.precision import Precision
from preflow.models.resolve import resolve_model
from preflow.models.trl_forward import pack_sequences
from preflow.observer import Silent
from preflow.stages.sft import CheckedSFTTrainer

BATCH = 8
OTHERS = ("trl", "trl_kept")
OURS = "preflow"
DEMO = Path(__file__).parents[1] / "recipes" / "demo" / "demonstrations.jsonl"


def main(
    data: Annotated[Path, typer.Option(help="Demonstrations.")] = DEMO,
    steps: Annotated[int, typer.Option(help="Counted steps of each contender.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help="Three steps instead.")] = False,
) -> None:
    """Measure them side by side."""
    logging.disable(logging.WARNING)
    steps = 3 if quick else steps
    recipe = Recipe.model_validate({"strategy": "sft", "model_name": "SmolLM2-135M-Instruct", "max_seq_length": 512})
    precision = Precision(torch.device("cpu"), torch.float32, torch.float32)
    rows = demonstrations(recipe, data, (steps + 1) * BATCH)
    contenders = {name: Apart(partial(contender, recipe, rows, name, precision)) for name in (*OTHERS, OURS)}
    for one in contenders.values():
        one.wait()  # all of them, before any is measured
    for start in range(BATCH, len(rows), BATCH):
        for one in contenders.values():
            one.step(list(range(start, start + BATCH)))
        print("  ".join(f"{name} {one.seconds[-1]:.2f} s" for name, one in contenders.items()), flush=True)
    shape = shape_of(load_weights(resolve_model(recipe, Silent()).path, recipe, precision).config)
    report(contenders, rows, arithmetic(shape, rows, precision))


def report(contenders: dict[str, Apart], rows: list[TokenizedDemonstration], flops: dict[str, float]) -> None:
    """Print what was measured of the counted steps."""
    tokens = sum(len(row.input_ids) for row in rows[BATCH:])
    peak = {name: one.ask("peak") for name, one in contenders.items()}
    for name, one in contenders.items():
        rate = tokens / sum(one.seconds)
        print(f"{name:8s} {rate:7.1f} tokens/s, {peak[name] / 2**20:7.0f} MiB above the loaded trainer")
    ours = contenders[OURS]
    values: dict[str, float] = {}
    for name in OTHERS:
        theirs, bound = contenders[name], flops[name] / flops[OURS]
        ratio = sum(theirs.seconds) / sum(ours.seconds)
        each = [a / b for a, b in zip(theirs.seconds, ours.seconds, strict=True)]
        print(f"against {name}: {ratio:.2f} (median of the steps' own ratios {median(each):.2f}); arithmetic alone "
              f"gives {bound:.2f}")  # fmt: skip
        values |= {
            f"ratio_vs_{name}": ratio,
            f"median_ratio_vs_{name}": median(each),
            f"memory_ratio_vs_{name}": peak[OURS] / peak[name],
            f"share_of_flop_bound_vs_{name}": ratio / bound,
        }
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours.losses, contenders["trl"].losses, strict=True))
    print(json.dumps({**{name: round(value, 3) for name, value in values.items()}, "max_rel_loss_difference": gap}))


def arithmetic(
    shape: ModelShape, rows: list[TokenizedDemonstration], precision: Precision, size: int = BATCH
) -> dict[str, float]:
    """Floating-point operations of each contender over the counted batches, all but the first."""
    totals, products = dict.fromkeys((*OTHERS, OURS), 0.0), head_products(shape, 16, precision)
    for start in range(size, len(rows), size):
        batch = rows[start : start + size]
        width = max(len(row.input_ids) for row in batch)
        padded = TokenWork(size * width, size * width**2, size * (width - 1))
        for name, recompute in zip(OTHERS, (True, False), strict=True):
            totals[name] += training_flops(shape, padded, 16, head_products=2, recompute=recompute)
        totals[OURS] += training_flops(shape, packed_batch(batch), 16, head_products=products)
    return totals


def packed_batch(rows: list[TokenizedDemonstration]) -> TokenWork:
    """What Preflow runs over for a batch: no padding, and what all rows begin with once."""
    lengths = [(len(row.input_ids), sum(row.response_mask)) for row in rows]
    common = shared_prefix_length(row.input_ids[: row.response_mask.index(True) - 1] for row in rows)
    return batch_work(lengths, packed=True, common=common)


def demonstrations(recipe: Recipe, data: Path, count: int) -> list[TokenizedDemonstration]:
    """Token ids and masks, shuffled."""
    (source,) = resolve_sources([str(data)])
    rows = []
    for row in read_rows(source):
        with suppress(RowProblem):  # rows that the validate stage would quarantine
            rows.append(to_demonstration(row))
    base = resolve_model(recipe, Silent())
    tokenized, _ = tokenize_demonstrations(rows, Renderer(load_tokenizer(base, recipe), recipe.rendering), 512, "drop")
    return random.Random(0).sample(tokenized, min(count, len(tokenized)) // BATCH * BATCH)


def contender(recipe: Recipe, rows: list[TokenizedDemonstration], name: str, precision: Precision) -> Contender:
    """One of ``OTHERS``, or TRL's trainer with Preflow's forward."""
    assert recipe.sft is not None, "the benchmark's recipe has an SFT section"
    base = resolve_model(recipe, Silent())
    model, tokenizer = load_weights(base.path, recipe, precision), load_tokenizer(base, recipe)
    return trainer_of(model, tokenizer, recipe.sft, rows, name, precision)


def trainer_of(
    model: Any,
    tokenizer: Any,
    settings: SftSettings,
    rows: list[TokenizedDemonstration],
    name: str,
    precision: Precision,
) -> Contender:
    """The contender of a name on a base model.

    Args:
        model: The base; it gets an adapter.
        tokenizer: Any: the rows are token ids.
        settings: Those of the adapter.
        rows: To train on.
        name: One of ``OTHERS``, or ``OURS``.
        precision: Device and dtypes.
    """
    logging.disable(logging.WARNING)
    labels = [
        [token if counts else IGNORED for token, counts in zip(row.input_ids, row.response_mask, strict=True)]
        for row in rows
    ]
    ours: dict[str, Any] = {} if name == "trl" else {"gradient_checkpointing": False}
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=precision.device.type == "cpu",
        bf16=precision.compute is torch.bfloat16,
        max_length=None,
        report_to="none",
        packing=False,
        **ours,
    )
    trainer: Any = CheckedSFTTrainer(
        model=new_adapter(model, settings, seed=0),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": labels}),
        processing_class=tokenizer,
    )
    trainer.model.train()
    if config.activation_checkpointing:  # the Trainer does so when it begins to train
        trainer.model.activation_checkpointing_enable()
    if name == OURS:
        pack_sequences(inner_model(trainer.model))
        fuse_lora(trainer.model)
        use_cpu_kernels(trainer.model)
    optimizer = torch.optim.AdamW([p for p in trainer.model.parameters() if p.requires_grad], lr=2e-4)
    return Contender(trainer, optimizer, precision, keeps_memory=name == OURS)


if __name__ == "__main__":
    typer.run(main)
