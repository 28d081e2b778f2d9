"""How far two computations of one log-prob lie apart by rounding, and how far a wrong reference lies from a right one.

``python -m bench.bench_start_checks [--data FILE ...] [--rows N] [--dtypes float32,bfloat16,nf4] [--quick]`` scores
responses with SmolLM2-135M-Instruct and an adapter that is trained here, in four ways: one prompt at a time with both
responses (``stored``), in packed batches by the trainer's forward (``policy``), in padded batches (``padded``), and one
response at a time by the plain forward (``plain``). It prints how far their log-probs of a token lie apart, on rows of
the files and on rows made of them: prompts of 2,000 tokens and more, answers of one to three tokens, and answers that
the model is sure of. Then the same of wrong references. Both stand beside the limits of ``preflow.maths.agreement``;
one JSON line with both error rates comes last. Without files, the demo's pairs are taken. On the CPU.
"""

import json
import logging
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor

from bench.parts.start_check_rows import Tokens, draw
from preflow.config import Recipe
from preflow.dpo.trainer import StoredReferenceTrainer, as_dataset, policy_scores
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.maths.agreement import Agreement
from preflow.models.adapters import inner_model, new_adapter
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import LanguageModel, load_tokenizer, load_weights
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef, resolve_model
from preflow.models.scoring import response_logprobs, scores
from preflow.models.trl_forward import pack_pairs, score_responses_only
from preflow.observer import Silent

DEMO = Path(__file__).parents[1] / "recipes" / "demo" / "preferences.jsonl"
#: Steps of the SFT, of two rows each at the default learning rate: few, so that what it learns is hard to see.
STEPS = 10
#: Pairs of a batch, as in the start checks.
BATCH = 8
Values = list[Tensor]


class Adapters(NamedTuple):
    """Weights by name: of a short SFT after half of its steps, before the last one and at its end; of another one."""

    half: dict[str, Tensor]
    before: dict[str, Tensor]
    end: dict[str, Tensor]
    other: dict[str, Tensor]


def main(
    data: Annotated[list[Path] | None, typer.Option(help="Pairs or demonstrations; else the demo's pairs.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Pairs of each kind.")] = 4,
    tokens: Annotated[int, typer.Option(help="Most tokens of a row of a file.")] = 512,
    long: Annotated[int, typer.Option(help="Tokens of a long prompt, at least.")] = 2048,
    dtypes: Annotated[str, typer.Option(help="Of float32, bfloat16, nf4.")] = "float32,nf4",
    quick: Annotated[bool, typer.Option("--quick", help="Two pairs of each kind, in float32.")] = False,
) -> None:
    """Measure rounding and wrong references."""
    logging.disable(logging.WARNING)
    rows, dtypes = (2, "float32") if quick else (rows, dtypes)
    recipe = Recipe.model_validate({"model_name": "SmolLM2-135M-Instruct", "max_seq_length": 512, "sft": {}, "dpo": {}})
    base = resolve_model(recipe, Silent())
    kinds = draw(recipe, base, data or [DEMO], rows, tokens, long)
    trainer, every = Bench(recipe, base, "float32"), [row for some in kinds.values() for row in some]
    adapters = Adapters(*trainer.trained(every), trainer.trained(every, seed=1)[-1])
    result: dict[str, Any] = {}
    for dtype in dtypes.split(","):
        bench = Bench(recipe.model_copy(update={"use_4bit": dtype == "nf4"}), base, dtype)
        result[dtype] = bench.run(kinds, adapters)
    print(json.dumps(result))


class Bench:
    """The model with its adapter in one dtype, the ways of scoring, and the wrong references."""

    def __init__(self, recipe: Recipe, base: ModelRef, dtype: str) -> None:
        """Load nothing yet.

        Args:
            recipe: With 4-bit weights or not.
            base: The base model.
            dtype: ``float32``, ``bfloat16``, or ``nf4``, which computes in float32.
        """
        self.recipe, self.base, self.name = recipe, base, dtype
        compute = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.precision = Precision(torch.device("cpu"), compute, compute)

    def run(self, kinds: Mapping[str, list[Tokens]], adapters: Adapters) -> dict[str, Any]:
        """Measure both, print them, and give the figures."""
        start, wrong, rounding = time.perf_counter(), {}, {}
        model, first = self.model(), next(iter(kinds))
        put(model, adapters.end)
        right = {kind: stored(model, some, self.precision) for kind, some in kinds.items()}
        for name, values in self.wrong(model, adapters, kinds[first]):
            wrong[name] = self.figures(values, right[first])
            say(self.name, f"wrong: {name}", wrong[name])
        put(model, adapters.end)
        for kind, some in kinds.items():
            for way, values in self.ways(model, adapters.end, some):
                rounding[f"{kind}: {way}"] = self.figures(values, right[kind])
                say(self.name, f"{kind}: {way}", rounding[f"{kind}: {way}"])
        return {
            "rounding": rounding, "wrong": wrong, "seconds": round(time.perf_counter() - start),
            "false_alarms": sum(not one["limits_used"] <= 1 for one in rounding.values()), "right": len(rounding),
            "missed": [name for name, one in wrong.items() if one["limits_used"] <= 1],
        }  # fmt: skip

    def figures(self, got: Values, expected: Values) -> dict[str, float]:
        """The distribution of the differences, and what the rule makes of it."""
        agreement = Agreement(self.precision.compute)
        for a, b in zip(got, expected, strict=True):
            agreement.add(a, b)
        apart = torch.cat([a.double() - b.double() for a, b in zip(got, expected, strict=True)])
        return {
            "tokens": agreement.tokens, "mean": float(apart.mean()), "median": float(apart.abs().median()),
            "largest_token": float(apart.abs().max()), "largest_response": agreement.largest,
            "all_rows": agreement.overall, "limits_used": agreement.limits_used,
        }  # fmt: skip

    def model(self) -> LanguageModel:
        """The base with a fresh adapter, in evaluation mode."""
        settings = self.recipe.dpo
        assert settings is not None
        return new_adapter(load_weights(self.base.path, self.recipe, self.precision), settings, seed=0).eval()

    def trained(
        self, rows: Sequence[Tokens], seed: int = 0
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """An adapter's weights after half of a short SFT on chosen responses, before its last step, and at its end."""
        model, rng, found = self.model(), random.Random(seed), []
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
        short = sorted(rows, key=lambda row: len(row.prompt) + len(row.chosen))[: 2 + len(rows) // 2]
        for _ in range(STEPS):
            for row in rng.sample(short, 2):
                with torch.enable_grad(), self.precision.autocast():
                    ids = torch.tensor([[*row.prompt, *row.chosen]])
                    labels = torch.where(torch.arange(ids.shape[1]) < len(row.prompt), -100, ids)
                    model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(adapter_of(model))
        return found[STEPS // 2], found[-2], found[-1]

    def ways(
        self, model: LanguageModel, weights: Mapping[str, Tensor], rows: Sequence[Tokens]
    ) -> Iterator[tuple[str, Values]]:
        """The other ways of scoring, each with its values: chosen and rejected of each pair in turn."""
        yield "plain", [response_logprobs(model, (r.prompt, a), self.precision) for r in rows for a in r[1:]]
        for name in ("policy", "padded"):
            trainer = self.trainer(weights, packed=name == "policy")
            values: Values = []
            for start in range(0, len(rows), BATCH):
                pairs = [unscored(row) for row in rows[start : start + BATCH]]
                values += [value for both in policy_scores(trainer, pairs, self.precision) for value in both]
            yield name, values

    def trainer(self, weights: Mapping[str, Tensor], *, packed: bool) -> StoredReferenceTrainer:
        """TRL's trainer with one of Preflow's forwards."""
        from trl.trainer.dpo_config import DPOConfig

        config = DPOConfig(
            output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, max_length=None, report_to="none",
            precompute_ref_log_probs=True, gradient_checkpointing=False,
        )  # fmt: skip
        trainer: Any = StoredReferenceTrainer(
            model=self.model(), args=config, train_dataset=as_dataset([unscored(Tokens([1], [2], [2]))], None),
            processing_class=load_tokenizer(self.base, self.recipe),
        )  # fmt: skip
        policy = trainer.model
        for parameter in policy.parameters():  # TRL narrows the adapter of a 4-bit model
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        put(policy, weights)
        if packed:
            pack_pairs(inner_model(policy))
            fuse_lora(policy)
            use_cpu_kernels(policy)
        else:
            score_responses_only(inner_model(policy))
        result: StoredReferenceTrainer = trainer
        return result

    def wrong(self, model: LanguageModel, adapters: Adapters, rows: Sequence[Tokens]) -> Iterator[tuple[str, Values]]:
        """Values of models that are not the reference."""
        half, before, weights, other = adapters

        def scored(changed: Mapping[str, Tensor], precision: Precision = self.precision) -> Values:
            put(model, changed)
            return stored(model, rows, precision)

        yield "base, or a fresh adapter", scored({n: v * ("lora_A" in n) for n, v in weights.items()})
        yield "another adapter", scored(other)
        yield "checkpoint of half the steps", scored(half)
        yield "checkpoint of one step less", scored(before)
        yield "one step of DPO more", scored({n: v + 5e-6 * v.sign() for n, v in weights.items()})
        name = next(n for n in weights if "lora_B" in n)
        one = weights[name].clone()
        one.view(-1)[one.abs().argmax()] *= 2
        yield "one weight twice as large", scored({**weights, name: one})
        yield "adapter in bfloat16", scored({n: v.bfloat16().to(v.dtype) for n, v in weights.items()})
        if self.name == "float32":
            narrow = Precision(torch.device("cpu"), torch.float32, torch.bfloat16)
            yield "forward in bfloat16", scored(weights, narrow)
        yield "values of another row", around(scored(weights))


def around(values: Values) -> Values:
    """Each response's values in the place of another's, cut or repeated to its length."""
    moved = values[-1:] + values[:-1]
    return [m.repeat(-(-len(v) // len(m)))[: len(v)] for m, v in zip(moved, values, strict=True)]


def stored(model: LanguageModel, rows: Sequence[Tokens], precision: Precision) -> Values:
    """As the store's values are made: one prompt at a time."""
    fuse_lora(model)
    return [v for values in scores(model, [(r.prompt, r[1:]) for r in rows], precision) for v in values]


def adapter_of(model: LanguageModel) -> dict[str, Tensor]:
    """The weights that train, copied."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def put(model: LanguageModel, weights: Mapping[str, Tensor]) -> None:
    """Give an adapter weights."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def unscored(row: Tokens) -> ScoredPair:
    """A pair without a reference's values."""
    return ScoredPair(*row, [0.0] * len(row.chosen), [0.0] * len(row.rejected), "bench")


def say(dtype: str, what: str, figures: Mapping[str, float]) -> None:
    """Print one line of figures."""
    print(f"{dtype:9s} {what:50s} " + " ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    typer.run(main)
