"""The learning rate of DPO, chosen by a short range test on some of the training pairs."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from preflow.artifacts import SCRATCH, write_json
from preflow.config.training import DpoSettings
from preflow.dpo.kl_monitor import HeldOutMonitor
from preflow.dpo.rate_choice import WARMUP, TriedRate, choose_rate, tried_rates, whole_kl
from preflow.dpo.start import load_start
from preflow.dpo.start_checks import sample
from preflow.dpo.trainer import logits, make_trainer, token_scores
from preflow.errors import NonFiniteLossError
from preflow.evaluation.figures import draw_range_test
from preflow.fingerprints.files import json_digest
from preflow.logprobs.scored_pairs import ScoredPair, read_pairs
from preflow.models.loading import load_tokenizer
from preflow.models.precision import choose_precision
from preflow.observer import Observer, Silent
from preflow.specs import DpoSpec, TuneSpec
from preflow.training.loop import run_training
from preflow.training.out_of_memory import retry_with_smaller_batches

#: Share of the training pairs that is kept aside at most.
_ASIDE = 0.2
CHOICE = "choice.json"


def run_tune(spec: TuneSpec, out: Path, observer: Observer) -> None:
    """Train for a few steps at each of a few rates, from the same start on the same pairs, and choose one of them.

    Margins and KL are measured on the validation pairs, or without such on training pairs that are kept aside: no pair
    of the report decides. Writes
    ``choice.json`` (the chosen rate, why, and what each rate came to), ``figures/range_test.png`` and ``metrics.json``.
    A killed call finds the rates that were tried before.
    """
    retry_with_smaller_batches(
        spec.recipe, "dpo", lambda recipe: _tune(spec.model_copy(update={"recipe": recipe}), out, observer), observer
    )


def _tune(spec: TuneSpec, out: Path, observer: Observer) -> None:
    settings = spec.recipe.dpo
    assert settings is not None, "run_tune needs a recipe with a DPO section"
    pairs = list(read_pairs(spec.reference.file("train.parquet")))
    trained, aside = shares(pairs, settings)
    validation = spec.reference.file("validation.parquet")
    if validation.is_file():
        rows = steps_rows(settings)
        trained, aside = by_prompt(pairs)[:rows], sample(read_pairs(validation), settings.range_test_pairs)
    rates, tried = tried_rates(settings, spec.recipe.tuning), list[TriedRate]()
    for number, rate in enumerate(rates, start=1):
        observer.progress(number - 1, len(rates), "tune: learning rates")
        tried.append(_remembered(spec, settings, rate, trained, aside, out))
        whole = whole_kl(tried[-1].kl, settings, len(pairs)) if tried[-1].kl is not None else None
        tried[-1] = replace(tried[-1], whole_kl=whole)
        if whole is None or whole > settings.range_test_kl:
            break  # every larger rate would go further
    observer.progress(len(rates), len(rates), "tune: learning rates")
    rate, why = choose_rate(tried, settings.range_test_kl)
    observer.note(f"tune: learning rate {rate:g}: {why}")
    found = [each.to_json() for each in tried]
    write_json(out / CHOICE, {"learning_rate": rate, "why": why, "pairs_aside": len(aside), "tried": found})
    draw_range_test(out / "figures", found, rate, settings.range_test_kl)
    chosen = next((each for each in tried if each.rate == rate), TriedRate(rate))
    metrics = {"learning_rate": rate, "rates": float(len(tried)), "margin": chosen.margin}
    write_json(out / "metrics.json", {f"tune/{name}": value for name, value in metrics.items()})


def shares(pairs: list[ScoredPair], settings: DpoSettings) -> tuple[list[ScoredPair], list[ScoredPair]]:
    """Pairs to train on and pairs kept aside, in an order by the hash of the prompt: no prompt is among both."""
    order = by_prompt(pairs)
    count = max(1, min(settings.range_test_pairs, int(_ASIDE * len(order))))
    aside, rest = order[:count], order[count:]
    return [pair for pair in rest if pair.prompt_ids != aside[-1].prompt_ids][: steps_rows(settings)], aside


def by_prompt(pairs: list[ScoredPair]) -> list[ScoredPair]:
    """Pairs in the order of a hash of their prompt, those of one prompt together."""
    return sorted(pairs, key=lambda pair: json_digest(list(pair.prompt_ids)))


def steps_rows(settings: DpoSettings) -> int:
    """Pairs that the range test trains on at each rate."""
    return settings.range_test_steps * settings.per_device_train_batch_size * settings.gradient_accumulation_steps


def _remembered(
    spec: TuneSpec,
    settings: DpoSettings,
    rate: float,
    trained: list[ScoredPair],
    aside: list[ScoredPair],
    out: Path,
) -> TriedRate:
    """What a rate came to, from an earlier call that was killed or from training now."""
    file = out / SCRATCH / f"rate-{rate:g}.json"
    if file.is_file():
        return TriedRate(**json.loads(file.read_text(encoding="utf-8")))
    tried = _try(spec, settings, rate, trained, aside, out / SCRATCH / f"{rate:g}")
    partial = file.with_suffix(".partial")
    write_json(partial, tried.to_json())
    partial.rename(file)
    return tried


def _try(
    spec: TuneSpec,
    settings: DpoSettings,
    rate: float,
    trained: list[ScoredPair],
    aside: list[ScoredPair],
    folder: Path,
) -> TriedRate:
    """Train at one rate and measure."""
    folder.mkdir(parents=True, exist_ok=True)
    precision = choose_precision(spec.recipe)
    changes: Mapping[str, object] = {
        "learning_rate": rate,
        "max_steps": settings.range_test_steps,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_ratio": WARMUP,
        "save_steps": settings.range_test_steps + 1,
    }
    short = settings.model_copy(update=changes)
    given = DpoSpec(**{**dict(spec), "recipe": spec.recipe.model_copy(update={"dpo": short})})
    trainer = make_trainer(
        given, load_start(given, short, precision), load_tokenizer(spec.base, spec.recipe), trained, folder, Silent()
    )
    trainer.judged_elsewhere = True
    held_out = HeldOutMonitor(
        aside,
        lambda chunk: token_scores(trainer, chunk, precision),
        lambda row: logits(trainer, row, precision),
        settings.beta,
        settings.eval_batch_size,
    )
    held_out.snapshot_reference()
    try:
        run_training(trainer, folder)
    except NonFiniteLossError:
        return TriedRate(rate)
    measured = held_out.measure()
    if not measured.is_finite():
        return TriedRate(rate)
    return TriedRate(rate, measured.kl, measured.reward_margin, measured.reward_margin_se, measured.reward_accuracy)
