"""Speed and memory of a DPO step: TRL with a live reference, TRL with precomputed values, Preflow; in turn, in one run.

``python -m bench.bench_dpo [--data FILE] [--steps N] [--batch N] [--kept] [--quick] [--device cuda]`` prints
pairs per second, peak memory, the ratios that the arithmetic alone would give (on the pairs drawn, and on all of the
file), the share of the rate of plain matrix products that Preflow reaches, and last one JSON line. Without a file,
pairs of random tokens with the lengths of real conversations are used. How much padding and repeated prompts cost
depends on the batches that are drawn: the first few of a file say little of it.

``live`` and ``precomputed`` are TRL as it is shipped: its defaults compute activations again in the backward
(``gradient_checkpointing``). ``--kept`` adds ``live_kept`` and ``precomputed_kept``, TRL with that switched off, as it
is off in Preflow. Each contender has a process of its own, and takes its steps while the others wait, each step twice:
the second counts. On the CPU the model is SmolLM2-135M with its 30 layers; on a GPU one of about 1B parameters with
random weights, in bfloat16, for which nothing is fetched. Every contender trains the same adapter (rank 16) on the same
shuffled batches, of 4 pairs; on a GPU of 32.
"""

import json
import logging
import math
import random
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from transformers import LlamaConfig

from bench.parts.contenders import Apart, Contender, MatrixRate, plain_tokenizer, random_model
from preflow.config import Recipe
from preflow.config.training import DpoSettings
from preflow.data.conversion import RowProblem, to_pair
from preflow.data.files.reader import read_rows
from preflow.data.files.sources import resolve_sources
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_pairs
from preflow.dpo.trainer import StoredReferenceTrainer, as_dataset
from preflow.estimates.flops import ModelShape, TokenWork, forward_flops, shape_of, training_flops
from preflow.estimates.training import head_products
from preflow.estimates.workload import batch_work
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.adapters import inner_model, new_adapter
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import load_tokenizer, load_weights
from preflow.models.packed.layout import shared_prefix_length
from preflow.models.precision import Precision
from preflow.models.resolve import resolve_model
from preflow.models.scoring import scores
from preflow.models.trl_forward import pack_pairs
from preflow.observer import Silent

#: Pairs of a step, by device: four leave a GPU with less than it can begin at once.
BATCH = {"cpu": 4, "cuda": 32}
#: A model of about 1B parameters, built from its configuration: random weights do for speed.
ONE_BILLION = LlamaConfig(
    vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=True, max_position_embeddings=4096, pad_token_id=0,
)  # fmt: skip
#: TRL with a live reference and with stored values: as shipped, and with activations kept as Preflow keeps them.
SHIPPED = ("live", "precomputed")
OTHERS = (*SHIPPED, "live_kept", "precomputed_kept")
OURS = "preflow"
Tokens = tuple[list[int], list[int], list[int]]


def main(
    data: Annotated[Path | None, typer.Option(help="Preference pairs; random ones where not given.")] = None,
    steps: Annotated[int, typer.Option(help="Counted steps of each contender.")] = 18,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[int | None, typer.Option(help="Pairs of a step; 4 on a CPU, 32 on a GPU where not given.")] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Also TRL with its activations kept.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Two steps instead.")] = False,
) -> None:
    """Measure the contenders side by side."""
    logging.disable(logging.WARNING)
    steps, size = 2 if quick else steps, batch or BATCH[device]
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": "SmolLM2-135M-Instruct", "max_seq_length": 512})
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    precision = Precision(torch.device(device), dtype, dtype)
    tokens = rows(recipe, data, (steps + 1) * size, size)
    model, shape = loader(recipe, precision)
    pairs = score(model(), tokens, precision)
    names = (*(OTHERS if kept else SHIPPED), OURS)
    contenders = {name: Apart(partial(contender, recipe, pairs, name, precision)) for name in names}
    for one in contenders.values():
        one.wait()  # all of them, before any is measured
    rate = MatrixRate.of(shape, _row_tokens(tokens, size), precision)
    difference = check(contenders[OURS], contenders["precomputed"], tokens, size)
    for start in range(size, len(pairs), size):
        rate.measure()
        for one in contenders.values():
            one.step(list(range(start, start + size)))
        times = "  ".join(f"{name} {one.seconds[-1]:.2f} s" for name, one in contenders.items())
        print(f"{times}  (products at {rate.last() / 1e9:.0f} GFLOP/s)", flush=True)
    card = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{card}; pairs: {data or 'random'}")
    everything = arithmetic(shape, rows(recipe, data, sys.maxsize, size), precision, size) if data else {}
    report(contenders, arithmetic(shape, tokens, precision, size), everything, rate.value(), difference, size)


def report(
    contenders: dict[str, Apart],
    flops: dict[str, float],
    everything: dict[str, float],
    rate: float,
    difference: float,
    size: int,
) -> None:
    """Print what was measured of the counted steps.

    Args:
        contenders: That took them.
        flops: Of each contender over the batches of those steps.
        everything: Of each over all batches that the data give; empty where they are drawn without end.
        rate: Of plain products, in operations per second.
        difference: As ``check`` found it.
        size: Pairs of a step.
    """
    seconds = {name: sum(one.seconds) for name, one in contenders.items()}
    peak = {name: one.ask("peak") for name, one in contenders.items()}
    for name, one in contenders.items():
        steps = len(one.seconds)
        print(f"{name:16s} {size * steps / seconds[name]:6.2f} pairs/s, {peak[name] / 2**20:8.0f} MiB above the "
              f"loaded trainer ({steps} steps)")  # fmt: skip
    ours, share = contenders[OURS], flops[OURS] / seconds[OURS] / rate
    values: dict[str, float] = {}
    for name in (name for name in contenders if name != OURS):
        each = [a / b for a, b in zip(contenders[name].seconds, ours.seconds, strict=True)]
        ratio, bound = seconds[name] / seconds[OURS], flops[name] / flops[OURS]
        whole = f" ({everything[name] / everything[OURS]:.2f} on all pairs of the data)" if everything else ""
        print(f"against {name}: {ratio:.2f} (median of the steps' own ratios {median(each):.2f}); arithmetic alone "
              f"gives {bound:.2f}{whole}; {ratio / share:.2f} if Preflow's step took its products alone")  # fmt: skip
        values |= {
            f"ratio_vs_{name}": ratio,
            f"median_ratio_vs_{name}": median(each),
            # Processor time is what remains comparable where other programs share the cores.
            f"cpu_time_ratio_vs_{name}": sum(contenders[name].work) / sum(ours.work),
            f"memory_ratio_vs_{name}": peak[OURS] / peak[name],
            f"share_of_flop_bound_vs_{name}": ratio / bound,
        }
    print(f"Preflow reaches {share:.2f} of the rate of plain matrix products, {rate / 1e9:.0f} GFLOP/s")
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours.losses, contenders["precomputed"].losses, strict=True))
    rounded = {name: round(value, 3) for name, value in {**values, "share_of_matrix_rate": share}.items()}
    print(json.dumps({**rounded, "max_rel_loss_difference": gap, "max_rel_logp_difference": difference}))


def _row_tokens(tokens: list[Tokens], size: int) -> int:
    """Tokens of Preflow's row for a batch, on average."""
    batches = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    return sum(packed_batch(each).tokens for each in batches) // len(batches)


def padded_batch(lengths: list[tuple[int, int, int]]) -> TokenWork:
    """What TRL runs over for a batch of pairs of (prompt, chosen, rejected) tokens: all rows as long as the longest."""
    width = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    rows = 2 * len(lengths)
    return TokenWork(rows * width, rows * width * width, rows * (width - 1))


def packed_batch(pairs: list[Tokens]) -> TokenWork:
    """What Preflow runs over for a batch: each prompt once, and what all prompts begin with once."""
    common = shared_prefix_length(prompt[:-1] for prompt, _, _ in pairs)
    return batch_work([tuple(map(len, pair)) for pair in pairs], packed=True, common=common)


def arithmetic(shape: ModelShape, tokens: list[Tokens], precision: Precision, size: int) -> dict[str, float]:
    """Floating-point operations of each contender over the counted batches, all but the first."""
    totals, products = dict.fromkeys((*OTHERS, OURS), 0.0), head_products(shape, 16, precision)
    for start in range(size, len(tokens), size):
        lengths = [(len(p), len(c), len(r)) for p, c, r in tokens[start : start + size]]
        padded = padded_batch(lengths)
        reference = forward_flops(shape, padded)
        for ending, recompute in (("", True), ("_kept", False)):
            stored = training_flops(shape, padded, 16, head_products=2, recompute=recompute)
            totals[f"precomputed{ending}"] += stored
            totals[f"live{ending}"] += stored + reference
        totals[OURS] += training_flops(shape, packed_batch(tokens[start : start + size]), 16, head_products=products)
    return totals


def check(ours: Apart, theirs: Apart, tokens: list[Tokens], size: int) -> float:
    """Largest difference of a response's log-prob on the first batches, relative to ``max(|sum|, tokens)``."""
    worst = 0.0
    for start in range(0, min(2 * size, len(tokens)), size):
        indices = list(range(start, start + size))
        got, expected = (one.ask("log_probs", indices) for one in (ours, theirs))
        counts = [len(tokens[i][side]) for side in (1, 2) for i in indices]
        for a, b, count in zip(got, expected, counts, strict=True):
            worst = max(worst, abs(a - b) / max(abs(b), count))
    return worst


def drawn_pairs(count: int, vocabulary: int = 40_000) -> list[Tokens]:
    """Pairs of random tokens, with lengths as in HH's harmless test pairs under SmolLM2's template.

    These are log-normal, means about 139 tokens of prompt, of which all share the first 24, 41 of chosen and 50 of
    rejected.
    """
    rng = random.Random(0)

    def draw(mean: float, longest: int) -> list[int]:
        count = 1 + int(rng.lognormvariate(math.log(mean) - 0.8**2 / 2, 0.8))
        return [rng.randrange(100, vocabulary) for _ in range(min(longest, count))]

    system = [rng.randrange(100, vocabulary) for _ in range(24)]
    return [(system + draw(118, 360), draw(42, 128), draw(51, 128)) for _ in range(count)]


def rows(recipe: Recipe, data: Path | None, count: int, size: int) -> list[Tokens]:
    """Token ids of prompt, chosen and rejected, shuffled; of a file whole batches of ``size`` alone."""
    if data is None:
        return drawn_pairs(count)
    rng = random.Random(0)
    (source,) = resolve_sources([str(data)])
    pairs = []
    for row in read_rows(source):
        with suppress(RowProblem):  # rows that the validate stage would quarantine
            pairs.append(to_pair(row))
    base = resolve_model(recipe, Silent())
    tokenized, _ = tokenize_pairs(pairs, Renderer(load_tokenizer(base, recipe), recipe.rendering), 512, "drop")
    chosen = rng.sample(tokenized, min(count, len(tokenized)) // size * size)
    return [(row.prompt_ids, row.chosen_ids, row.rejected_ids) for row in chosen]


def loader(recipe: Recipe, precision: Precision) -> tuple[Callable[[], Any], ModelShape]:
    """Makes a fresh base model, always with the same weights; and its sizes."""
    if precision.device.type == "cuda":
        return partial(random_model, ONE_BILLION, precision), shape_of(ONE_BILLION)
    folder = resolve_model(recipe, Silent()).path
    return lambda: load_weights(folder, recipe, precision), shape_of(load_weights(folder, recipe, precision).config)


def score(model: Any, tokens: list[Tokens], precision: Precision) -> list[ScoredPair]:
    """Pairs with the base model's log-probs."""
    pairs = []
    for prompt, chosen, rejected in tokens:
        (values,) = scores(model, [(prompt, (chosen, rejected))], precision)
        pairs.append(ScoredPair(prompt, chosen, rejected, values[0].tolist(), values[1].tolist(), "bench"))
    return pairs


def contender(recipe: Recipe, pairs: list[ScoredPair], name: str, precision: Precision) -> Contender:
    """One of ``OTHERS``, or TRL's trainer with Preflow's forward on stored values."""
    assert recipe.dpo is not None, "the benchmark's recipe has a DPO section"
    model, _ = loader(recipe, precision)
    own = precision.device.type == "cpu"
    tokenizer = load_tokenizer(resolve_model(recipe, Silent()), recipe) if own else plain_tokenizer()
    return trainer_of(model(), tokenizer, recipe.dpo, pairs, name, precision)


def trainer_of(
    model: Any, tokenizer: Any, settings: DpoSettings, pairs: list[ScoredPair], name: str, precision: Precision
) -> Contender:
    """The contender of a name on a base model.

    Args:
        model: The base; it gets an adapter.
        tokenizer: Any: the pairs are token ids.
        settings: Those of the adapter.
        pairs: With reference values, which the ``live`` ones compute anew.
        name: One of ``OTHERS``, or ``OURS``.
        precision: Device and dtypes.
    """
    from trl.trainer.dpo_config import DPOConfig

    logging.disable(logging.WARNING)
    ours: dict[str, Any] = {"gradient_checkpointing": False} if name == OURS or name.endswith("_kept") else {}
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=precision.device.type == "cpu",
        bf16=precision.compute is torch.bfloat16,
        max_length=None,
        report_to="none",
        precompute_ref_log_probs=not name.startswith("live"),
        **ours,
    )
    trainer: Any = StoredReferenceTrainer(
        model=new_adapter(model, settings, seed=0),
        args=config,
        train_dataset=as_dataset(pairs, None),
        processing_class=tokenizer,
    )
    policy: Any = trainer.model
    policy.train()
    if config.activation_checkpointing:  # the Trainer does so when it begins to train
        policy.activation_checkpointing_enable()
    if name == OURS:
        pack_pairs(inner_model(policy))
        fuse_lora(policy)
        use_cpu_kernels(policy)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-5)
    return Contender(trainer, optimizer, precision, keeps_memory=name == OURS)


if __name__ == "__main__":
    typer.run(main)
