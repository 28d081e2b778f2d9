"""Peak memory of Preflow's DPO training: what the plan says before, and what PyTorch allocates."""

import gc
import importlib.util
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.bench_dpo import Tokens
from bench.gpu.workload import Workload
from bench.parts.contenders import plain_tokenizer, random_model
from preflow.config import Recipe
from preflow.dpo.trainer import make_trainer
from preflow.estimates.fit import weights_precision
from preflow.estimates.flops import shape_of
from preflow.estimates.training import training_memory
from preflow.logprobs.scored_pairs import ScoredPair
from preflow.models.adapters import new_adapter
from preflow.models.loading import LanguageModel
from preflow.models.out_of_memory import free_unused
from preflow.models.peak_memory import PeakMemory
from preflow.models.precision import Precision
from preflow.observer import Silent
from preflow.specs import DpoSpec
from preflow.training.loop import run_training

MISSING = "not run: bitsandbytes missing"


@dataclass(frozen=True)
class Case:
    """A training whose memory is estimated.

    Attributes:
        name: As lines have it.
        config: The model's.
        changes: Settings of the recipe.
        batch: Pairs of a step.
    """

    name: str
    config: LlamaConfig
    changes: dict[str, Any]
    batch: int


def cases(work: Workload) -> list[Case]:
    """An adapter and all weights at 1B, 4-bit weights at 1B and 8B."""
    batch = work.row_sets[-1].batch
    return [
        Case("lora_1b", work.model, {}, batch),
        Case("full_1b", work.model, {"tuning": "full"}, batch),
        Case("qlora_1b", work.model, {"use_4bit": True}, batch),
        Case("qlora_8b", work.large, {"use_4bit": True}, max(1, batch // 4)),
    ]


def run(work: Workload, out: Path) -> Iterator[dict[str, Any]]:
    """Each case on pairs of 1,024 tokens."""
    del out
    for case in cases(work):
        if case.changes.get("use_4bit") and importlib.util.find_spec("bitsandbytes") is None:
            yield {"case": case.name, "not_run": MISSING}
            continue
        pairs = work.row_sets[-1].draw(2 * case.batch, case.config.vocab_size)
        yield {"case": case.name, "batch": case.batch, **_compare(case, pairs, work.precision, 1 if work.dry else 2)}
        gc.collect()
        free_unused()


def _compare(case: Case, rows: list[Tokens], precision: Precision, steps: int) -> dict[str, Any]:
    """Estimated and measured peak of so many steps, in MiB: in all, and what training adds to the loaded model."""
    section = {
        "per_device_train_batch_size": case.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "eval_steps": 0,
    }
    given = {"strategy": "dpo", "model_name": "random", "bf16": True, "dpo": section}
    recipe = Recipe.model_validate({**given, **case.changes})
    assert recipe.dpo is not None
    precision = weights_precision(recipe, precision)
    memory = training_memory(shape_of(case.config), recipe, recipe.dpo, [_lengths(row) for row in rows], precision)
    before = torch.cuda.memory_allocated() if precision.device.type == "cuda" else 0
    model = _model(case, recipe, precision)
    policy = new_adapter(model, recipe.dpo, 0) if recipe.tuning == "lora" else model.requires_grad_(True)
    even = -math.log(case.config.vocab_size)  # about what a model of small random weights gives every token
    pairs = [ScoredPair(*row, [even] * len(row[1]), [even] * len(row[2]), "random") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        spec = DpoSpec.model_construct(recipe=recipe)
        trainer = make_trainer(spec, policy, plain_tokenizer(), pairs, Path(folder), Silent())
        trainer.args.save_strategy = "no"  # a checkpoint of all weights would take longer than the steps
        taken = PeakMemory(precision.device, policy)
        run_training(trainer, Path(folder))
    whole, training = taken.peak() - before, taken.above_idle() or 0
    return {
        "predicted_mib": round(memory.total / 2**20),
        "measured_mib": round(whole / 2**20),
        "predicted_training_mib": round(memory.tensors / 2**20),
        "measured_training_mib": round(training / 2**20),
        "error": round(abs(memory.total / max(1, whole) - 1), 3),
        "training_error": round(abs(memory.tensors / max(1, training) - 1), 3),
    }


def _lengths(row: Tokens) -> tuple[int, int, int]:
    prompt, chosen, rejected = map(len, row)
    return prompt, chosen, rejected


def _model(case: Case, recipe: Recipe, precision: Precision) -> LanguageModel:
    """A model of random weights, packed to 4 bits as a stored one is when it is loaded."""
    if not recipe.use_4bit:
        return random_model(case.config, precision)
    from transformers import BitsAndBytesConfig

    weights = random_model(case.config, replace(precision, weights=torch.bfloat16)).state_dict()
    model: LanguageModel = LlamaForCausalLM.from_pretrained(
        None,
        config=case.config,
        state_dict=weights,
        dtype=precision.weights,
        device_map={"": str(precision.device)},
        quantization_config=BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision.compute,
        ),
    )
    return model.requires_grad_(False)
