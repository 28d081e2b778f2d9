"""Base, SFT and DPO model side by side on held-out rows: preferences, rewards, divergence, perplexity, answers."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from preflow.artifacts import write_json
from preflow.data.rows import Pair, content_id, first_user_turn
from preflow.data.splits import cluster_key
from preflow.data.tokens.tokenize import tokenize_demonstrations
from preflow.data.validated import load_demonstrations, load_pairs, selection_split
from preflow.evaluation import figures
from preflow.evaluation.generation import answer_report, held_out_prompts, samples
from preflow.evaluation.models import ModelSet
from preflow.evaluation.preferences import PairScores, compare, preference_report
from preflow.logprobs.scored_pairs import ScoredPair, read_pairs
from preflow.maths.clusters import Rows, cluster_count, cluster_numbers
from preflow.maths.power import prompts_needed, visible_difference
from preflow.maths.spread import evenly_spaced
from preflow.models import scoring
from preflow.models.packed.layout import PromptResponses
from preflow.observer import Observer
from preflow.specs import EvaluateSpec
from preflow.stages.reference import score_groups

#: A difference of two shares that is small and worth knowing: what the summary names the number of prompts for.
SMALL_DIFFERENCE = 0.05


def run_evaluation(spec: EvaluateSpec, out: Path, observer: Observer) -> None:
    """Measure every model of the run on the same held-out rows.

    Writes ``evaluation.json`` (per model and measure: value and interval), ``samples.json`` (prompts with every model's
    answer), ``pairs.json`` (per held-out pair: its content id and its prompt's, its cluster, its source and each
    model's log-probs), ``answers/`` (per model every answer: prompt, its id and cluster, text, tokens, whether it
    finished, seed, none for a greedy answer, and the model's digest), ``figures/`` and ``metrics.json``.
    """
    pairs = list(read_pairs(spec.reference.file("eval.parquet"))) if spec.reference is not None else []
    rows = {row.id: row for row in load_pairs(spec.data, "eval")} if pairs else {}
    clusters = cluster_numbers(_cluster(rows[pair.id]) for pair in pairs)
    scores = _pair_scores(spec, pairs, observer)
    models = ModelSet(spec)
    report: dict[str, Any] = {"models": {name: {} for name in models.names}, "warnings": []}
    report["n_pairs"] = len(pairs)
    report["reference"] = "sft" if spec.sft is not None else "base"
    report["confidence"] = spec.recipe.evaluation.confidence
    if pairs:
        _add_preferences(spec, scores, clusters, report)
        report["power"] = _power(cluster_count(clusters), spec.recipe.evaluation.confidence)
    add_perplexity(spec, models, report, observer)
    settings = spec.recipe.evaluation
    held_out, too_long = held_out_prompts(spec, models)
    asked = evenly_spaced(held_out, settings.kl_prompts)
    report["prompts"] = {"held_out": len(held_out) + len(too_long), "asked": len(asked), "too_long": too_long}
    if too_long:
        report["warnings"].append(
            f"{len(too_long)} held-out prompts leave no tokens for an answer within max_seq_length and are not used "
            f"({', '.join(too_long[:5])}{', ...' if len(too_long) > 5 else ''})"
        )
    for name, values in answer_report(models, asked, settings, spec.recipe.seed, observer).items():
        report["models"][name].update(values)
    _warn(spec, report)
    write_json(out / "evaluation.json", report)
    write_json(out / "samples.json", samples(models, held_out, settings, observer))
    (out / "answers").mkdir(exist_ok=True)
    for name, rows_of_model in models.answered.items():
        write_json(out / "answers" / f"{name}.json", rows_of_model)
    write_json(out / "pairs.json", _per_pair(pairs, rows, scores))
    log = spec.dpo.load("training.json") if spec.dpo is not None else []
    beta = spec.recipe.dpo.beta if spec.recipe.dpo is not None else 1.0
    figures.draw(out / "figures", scores, log, beta)
    write_json(out / "metrics.json", headline(report))


def _pair_scores(spec: EvaluateSpec, pairs: list[ScoredPair], observer: Observer) -> dict[str, PairScores]:
    """Summed log-probs of the held-out pairs under every model; the reference's come from its artifact."""
    if not pairs:
        return {}
    stored = PairScores.of(pairs, [(pair.ref_chosen, pair.ref_rejected) for pair in pairs])
    known = {"sft" if spec.sft is not None else "base": stored}
    trained = {"base": None, "sft": spec.sft, "dpo": spec.dpo}
    scores = {}
    groups = [pair.group for pair in pairs]
    for name in _names(spec):
        if name in known:
            scores[name] = known[name]
            continue
        store = score_groups(
            spec.recipe,
            spec.base,
            trained[name],
            groups,
            observer,
            f"evaluate: {name} model on pairs",
            metrics=f"scoring_{name}",
        )
        scores[name] = PairScores.of(pairs, [store.get(pair.group) for pair in pairs])
    return scores


def _names(spec: EvaluateSpec) -> list[str]:
    present = {"base": True, "sft": spec.sft is not None, "dpo": spec.dpo is not None}
    return [name for name, there in present.items() if there]


def _add_preferences(spec: EvaluateSpec, scores: dict[str, PairScores], clusters: Rows, report: dict[str, Any]) -> None:
    settings, dpo = spec.recipe.evaluation, spec.recipe.dpo
    reference = "sft" if "sft" in scores else "base"
    for name, score in scores.items():
        against = scores[reference] if name == "dpo" else None
        beta = dpo.beta if dpo is not None else 1.0
        report["models"][name].update(preference_report(score, against, beta, settings, spec.recipe.seed, clusters))
    if "dpo" in scores:
        report["comparison"] = compare(scores["dpo"], scores[reference], settings, spec.recipe.seed, clusters)


def _cluster(pair: Pair) -> str:
    return cluster_key(first_user_turn(pair.prompt))


def _power(prompts: int, confidence: float) -> dict[str, float]:
    """What so many prompts can show of two models, and how many would show a small difference."""
    alpha = 1 - confidence
    return {
        "prompts": prompts,
        "visible_difference": visible_difference(prompts, alpha=alpha),
        "small_difference": SMALL_DIFFERENCE,
        "prompts_needed": prompts_needed(SMALL_DIFFERENCE, alpha=alpha),
    }


def add_perplexity(spec: EvaluateSpec, models: ModelSet, report: dict[str, Any], observer: Observer) -> None:
    """Perplexity on held-out demonstrations: exp of the mean negative log-prob per response token."""
    settings = spec.recipe.sft
    rows = load_demonstrations(spec.data, "eval") if settings is not None else []
    if settings is None or not rows:
        return
    tokenized, counts = tokenize_demonstrations(
        rows, models.renderer, settings.max_seq_length, settings.overlong_response, train_on=settings.train_on
    )
    report["demonstrations"] = counts.to_json()
    observer.note(f"evaluate, held-out demonstrations: {counts}")
    if not tokenized:
        report["warnings"].append(f"no perplexity: no held-out demonstration fits sft.max_seq_length ({counts})")
        return
    groups: list[PromptResponses] = [([row.input_ids[0]], [row.input_ids[1:]]) for row in tokenized]
    for name in models.names:
        total, count = 0.0, 0
        scored = scoring.scores(models.use(name), groups, models.precision)
        for done, (row, (values,)) in enumerate(zip(tokenized, scored, strict=True), start=1):
            mask = np.array(row.response_mask[1:], dtype=bool)
            total += float(values.double().numpy()[mask].sum())
            count += int(mask.sum())
            observer.progress(done, len(tokenized), f"evaluate: {name} model on demonstrations")
        report["models"][name]["perplexity"] = math.exp(-total / count)


def _warn(spec: EvaluateSpec, report: dict[str, Any]) -> None:
    limit, reference = spec.recipe.evaluation.kl_limit, report.get("reference")
    kl = report["models"].get("dpo", {}).get(f"kl_{reference}")
    if kl is not None and kl["value"] > limit:
        report["warnings"].append(
            f"KL of the DPO model from its reference ({reference}) is {kl['value']:.1f} nats per response, above the "
            f"limit of {limit:g}: raise beta or lower the learning rate"
        )
    stopped = spec.dpo.load("metrics.json").get("dpo/kept_step") if spec.dpo is not None else None
    if stopped is not None and selection_split(spec.data, "preferences") == "eval":
        report["warnings"].append(
            f"DPO was stopped early and its weights of step {stopped:.0f} were kept, as they did best on these "
            "held-out pairs: measures on the same pairs are too favourable (dpo.validation_split sets pairs apart)"
        )
    if 0 < report["n_pairs"] < 50:
        report["warnings"].append(
            f"only {report['n_pairs']} held-out pairs: intervals are wide, 50 or more are advised"
        )


def headline(report: dict[str, Any]) -> dict[str, float]:
    """Flat metrics for comparing runs: the final model's without a suffix, and every model's with its own."""
    models = report["models"]
    final = list(models)[-1]
    metrics: dict[str, float] = {}
    for name, values in models.items():
        for measure, value in values.items():
            number = float(value["value"] if isinstance(value, dict) else value)
            metrics[f"eval/{measure}_{name}"] = number
            if name == final:
                metrics[f"eval/{measure}"] = number
    if "eval/kl_sft" in metrics:
        metrics["eval/kl"] = metrics["eval/kl_sft"]
    elif final == "dpo" and "eval/kl_base" in metrics:  # DPO alone: the named model is the reference
        metrics["eval/kl"] = metrics["eval/kl_base"]
    if "comparison" in report:
        metrics["eval/preference_accuracy_gain"] = float(report["comparison"]["preference_accuracy_gain"]["value"])
    metrics["eval/pairs"] = float(report["n_pairs"])
    return metrics


def _per_pair(pairs: list[ScoredPair], rows: dict[str, Pair], scores: dict[str, PairScores]) -> list[dict[str, Any]]:
    return [
        {
            "id": pair.id,
            "prompt_id": content_id(rows[pair.id].prompt),
            "cluster": _cluster(rows[pair.id]),
            "source": pair.source,
            "chosen_tokens": len(pair.chosen_ids),
            "rejected_tokens": len(pair.rejected_ids),
            **{
                f"{side}_logprob_{name}": float(getattr(score, side)[index])
                for name, score in scores.items()
                for side in ("chosen", "rejected")
            },
        }
        for index, pair in enumerate(pairs)
    ]
