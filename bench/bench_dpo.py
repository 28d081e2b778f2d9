"""Speed of a DPO step: TRL with a live reference, TRL with precomputed values, Preflow; in turn, in one run.

``python -m bench.bench_dpo [--data FILE] [--steps N] [--quick]`` prints pairs per second of each and, last, one JSON
line with the ratios. Without a file, pairs of random tokens with the demo's lengths are used. Every contender trains
the same adapter of SmolLM2-135M on the same batches in the same order.
"""

import json
import logging
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from preflow.config import Recipe
from preflow.data.conversion import to_pair
from preflow.data.raw import read_rows
from preflow.data.reading import resolve_sources
from preflow.data.templates import Renderer
from preflow.data.tokens import tokenize_pairs
from preflow.models.adapters import inner_model, new_adapter
from preflow.models.base import ModelRef, resolve_model
from preflow.models.loading import load_tokenizer, load_weights
from preflow.models.precision import choose_precision
from preflow.models.scoring import group_logprobs
from preflow.models.trl_forward import score_responses_only, share_prompts
from preflow.observer import Silent
from preflow.stages.dpo import StoredReferenceTrainer, as_dataset
from preflow.stages.pairs import ScoredPair

BATCH = 4


def main(
    data: Annotated[Path | None, typer.Option(help="Preference pairs; random ones where not given.")] = None,
    steps: Annotated[int, typer.Option(help="Counted steps of each contender.")] = 8,
    model: Annotated[str, typer.Option(help="Base model, by the recipe's name.")] = "SmolLM2-135M-Instruct",
    quick: Annotated[bool, typer.Option("--quick", help="Three steps instead.")] = False,
) -> None:
    """Measure the contenders side by side."""
    logging.disable(logging.WARNING)
    steps = 3 if quick else steps
    recipe = Recipe.model_validate({"strategy": "dpo", "model_name": model, "max_seq_length": 512})
    base = resolve_model(recipe, Silent())
    pairs = score(recipe, base, rows(recipe, base, data, (steps + 1) * BATCH))
    contenders = {name: contender(recipe, base, pairs, name) for name in ("live", "precomputed", "preflow")}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, list[float]] = {name: [] for name in contenders}
    for start in range(0, len(pairs), BATCH):
        for name, step in contenders.items():
            begin = time.perf_counter()
            losses[name].append(step(list(range(start, start + BATCH))))
            seconds[name].append(time.perf_counter() - begin)
    report(seconds, losses)


def report(seconds: dict[str, list[float]], losses: dict[str, list[float]]) -> None:
    """Print pairs per second and the ratios, step by step, of the counted steps (the first one warms up)."""
    counted = {name: values[1:] for name, values in seconds.items()}
    for name, values in counted.items():
        print(f"{name:12s} {BATCH / median(values):6.2f} pairs/s (median of {len(values)} steps)")
    ratios = {
        f"ratio_vs_{name}": median(a / b for a, b in zip(counted[name], counted["preflow"], strict=True))
        for name in ("live", "precomputed")
    }
    gap = max(abs(a - b) / abs(b) for a, b in zip(losses["preflow"], losses["live"], strict=True))
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()} | {"max_rel_loss_difference": gap}))


def rows(recipe: Recipe, base: ModelRef, data: Path | None, count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Token ids of prompt, chosen and rejected."""
    if data is None:
        rng = random.Random(0)
        draw = lambda low, high: [rng.randrange(100, 40_000) for _ in range(rng.randint(low, high))]  # noqa: E731
        return [(draw(40, 55), draw(32, 48), draw(32, 48)) for _ in range(count)]  # type: ignore[no-untyped-call]
    (source,) = resolve_sources([str(data)])
    pairs = [to_pair(row) for _, row in zip(range(count), read_rows(source), strict=False)]
    renderer = Renderer(load_tokenizer(base, recipe), recipe.template)
    tokenized, _ = tokenize_pairs(pairs, renderer, 512, "drop")
    usable = len(tokenized) // BATCH * BATCH
    return [(row.prompt_ids, row.chosen_ids, row.rejected_ids) for row in tokenized[:usable]]


def score(recipe: Recipe, base: ModelRef, tokens: list[tuple[list[int], list[int], list[int]]]) -> list[ScoredPair]:
    """Pairs with the base model's log-probs."""
    precision = choose_precision(recipe)
    model = load_weights(base.path, recipe, precision)
    pairs = []
    for prompt, chosen, rejected in tokens:
        values = group_logprobs(model, (prompt, (chosen, rejected)), precision)
        pairs.append(ScoredPair(prompt, chosen, rejected, values[0].tolist(), values[1].tolist(), "bench"))
    return pairs


def contender(recipe: Recipe, base: ModelRef, pairs: list[ScoredPair], name: str) -> Callable[[list[int]], float]:
    """One way to take an optimizer step on some pairs; gives the loss before it."""
    from trl.trainer.dpo_config import DPOConfig

    assert recipe.dpo is not None, "the benchmark's recipe has a DPO section"
    precision = choose_precision(recipe)
    model = new_adapter(load_weights(base.path, recipe, precision), recipe.dpo, seed=0)
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=precision.device.type == "cpu",
        bf16=precision.compute is torch.bfloat16,
        max_length=None,
        gradient_checkpointing=False,
        report_to="none",
        precompute_ref_log_probs=name != "live",
    )
    trainer: Any = StoredReferenceTrainer(
        model=model,
        args=config,
        train_dataset=as_dataset(pairs, None),
        processing_class=load_tokenizer(base, recipe),
    )
    policy: Any = trainer.model
    policy.train()
    if name == "preflow":
        score_responses_only(inner_model(policy))
        share_prompts(inner_model(policy))
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-5)

    def step(indices: list[int]) -> float:
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in indices]))
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(policy, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


if __name__ == "__main__":
    typer.run(main)
