"""One chain of ``bench_alignment``: the stages themselves, without servers, and TRL's own trainer on the same pairs."""

import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from expectations.gate import run_gate
from flows.running.preparation import data_sources
from preflow.artifacts import Artifact, build, write_json
from preflow.config import Recipe
from preflow.diagnosis.diagnose import diagnose
from preflow.diagnosis.reading import measurements
from preflow.dpo.start import load_start
from preflow.dpo.trainer import as_dataset, make_trainer
from preflow.environment import preflow_home
from preflow.logprobs.scored_pairs import PairTable, read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.models.resolve import resolve_model
from preflow.observer import Silent
from preflow.specs import DpoSpec, EvaluateSpec, ReferenceSpec, SftSpec, StageSpec, TuneSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.evaluation import run_evaluation
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from preflow.stages.tune import run_tune
from preflow.training.arguments import training_arguments
from tasks.runtime.caching import place

Values = dict[str, Any]


class PlainTrainer(DPOTrainer):
    """TRL's trainer as it is, on rows that bring token ids and reference values, as Preflow's does."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


def run_chain(recipe: Recipe, trl_steps: int) -> Values:
    """Run a recipe's stages, each found again where it was computed before, and measure.

    ``seconds`` of the result are those in which the stages were computed; of one that was killed, the last part's.

    Args:
        recipe: With ``dpo.learning_rate: auto``.
        trl_steps: Steps over which Preflow's and TRL's losses are compared; 0 leaves that out.
    """
    seconds: list[float] = []

    def made(stage: str, spec: StageSpec, work: Callable[..., None]) -> Artifact:
        print(f"  {stage}", flush=True)
        final = place(stage, spec)
        spent = preflow_home() / "bench" / f"{stage}-{final.name}.json"

        def timed(out: Path) -> None:
            begin = time.monotonic()
            work(spec, out, Silent())
            spent.parent.mkdir(parents=True, exist_ok=True)
            write_json(spent, {"seconds": time.monotonic() - begin})

        artifact = build(final, timed)
        seconds.append(json.loads(spent.read_text(encoding="utf-8"))["seconds"] if spent.is_file() else 0.0)
        return artifact

    base = resolve_model(recipe, Silent())
    data = made("validate", data_sources(recipe), run_gate)
    sft = made("sft", SftSpec(recipe=recipe, base=base, data=data), run_sft) if recipe.sft is not None else None
    given: Values = {"recipe": recipe, "base": base, "data": data, "sft": sft}
    given["reference"] = made("reference", ReferenceSpec(**given), run_reference)
    choice = made("tune", TuneSpec(**given), run_tune)
    assert recipe.dpo is not None
    fitting = recipe.dpo.model_copy(update={"learning_rate": choice.load("choice.json")["learning_rate"]})
    given["recipe"] = recipe = recipe.model_copy(update={"dpo": fitting})
    aligned = made("dpo", DpoSpec(**given), run_dpo)
    evaluation = made("evaluate", EvaluateSpec(**given, dpo=aligned), run_evaluation)
    trained = {"sft": sft, "tune": choice, "dpo": aligned}
    found = diagnose(measurements(recipe, data, evaluation, trained, {}))
    return {
        **evaluation.load("evaluation.json"),
        "learning_rate": fitting.learning_rate,
        "training_pairs": int(aligned.load("metrics.json")["dpo/pairs"]),
        "diagnosis": [finding.to_json() for finding in found],
        "seconds": round(sum(seconds), 1),
        **({"trl": _beside_trl(DpoSpec(**given), trl_steps)} if trl_steps else {}),
    }


def _beside_trl(spec: DpoSpec, steps: int) -> Values:
    """Losses of the first steps under Preflow's trainer and under TRL's own, in the same order of the same pairs."""
    final = place("dpo", spec)
    kept = final.with_name(f"{final.name}-trl-{steps}")

    def compare(out: Path) -> None:
        ours, theirs = (_losses(spec, steps, plain=plain) for plain in (False, True))
        differs = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        write_json(out / "losses.json", {"preflow": ours, "trl": theirs, "largest_difference": differs})

    found: Values = build(kept, compare).load("losses.json")
    return {"steps": steps, "largest_difference": found["largest_difference"], "last_loss": found["trl"][-1]}


def _losses(spec: DpoSpec, steps: int, *, plain: bool) -> list[float]:
    dpo = spec.recipe.dpo
    assert dpo is not None
    short = dpo.model_copy(update={"max_steps": steps, "save_steps": steps + 1})
    spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"dpo": short})})
    precision, tokenizer = choose_precision(spec.recipe), load_tokenizer(spec.base, spec.recipe)
    pairs, start = read_pairs(spec.reference.file("train.parquet")), load_start(spec, short, precision)
    with tempfile.TemporaryDirectory() as folder:
        if plain:
            logging.disable(logging.WARNING)
            config = DPOConfig(
                **training_arguments(spec.recipe, short, precision, Path(folder)),
                beta=short.beta,
                precompute_ref_log_probs=True,
            )
            rows = as_dataset(PairTable.of(pairs), None).remove_columns(["row"])
            trainer: Any = PlainTrainer(model=start, args=config, train_dataset=rows, processing_class=tokenizer)
        else:
            trainer = make_trainer(spec, start, tokenizer, pairs, Path(folder), Silent())
            trainer.judged_elsewhere = True
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
