"""The model card of a finished run, in Hugging Face's format.

It is made from artifacts alone, so the same run gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preflow.config import Recipe

#: Measures that it names, by key of ``evaluation.json``.
_MEASURES = {
    "preference_accuracy": "preference accuracy",
    "preference_accuracy_length_matched": "preference accuracy, length-matched",
    "reward_accuracy": "reward accuracy",
    "reward_margin": "reward margin",
    "kl_sft": "KL from SFT",
    "kl_base": "KL from base",
    "perplexity": "perplexity",
    "response_tokens": "response tokens",
    "cut_share": "cut at the limit",
}
#: Stages whose artifacts it names, in their order.
ON_CARD = ("validate", "sft", "reference", "dpo", "evaluate", "benchmarks", "judge")
_MODELS = ("base", "sft", "dpo")
_TEMPLATE = """---
{{ card_data }}
---

{{ body }}
"""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a model card is made of.

    Attributes:
        recipe: The resolved recipe.
        base_digest: Digest of the base model's weights.
        stages: Digest of each stage's artifact, by the stage's name.
        data: The contents of ``report.json`` of data validation.
        evaluation: The contents of ``evaluation.json``.
        judge: Those of ``judge.json``; none where the recipe names no judge.
        benchmarks: Those of ``benchmarks.json``; none where the recipe names no benchmarks.
    """

    recipe: Recipe
    base_digest: str
    stages: Mapping[str, str]
    data: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    judge: Mapping[str, Any] | None = None
    benchmarks: Mapping[str, Any] | None = None


def model_card(facts: CardFacts) -> str:
    """The model card: front matter that Hugging Face's hub reads, and the run in Markdown. No network is used."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    recipe = facts.recipe
    result = [name for name in _MODELS if name in facts.evaluation["models"]][-1]
    accuracy = facts.evaluation["models"][result].get("preference_accuracy")
    results = None
    if accuracy is not None:  # a recipe of demonstrations alone has no pairs
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type="preferences",
                dataset_name=f"held-out pairs of {recipe.name}",
                metric_type="preference_accuracy",
                metric_value=accuracy["value"],
            )
        ]
    data = ModelCardData(
        base_model=_short(str(recipe.model_name)),
        library_name="peft" if recipe.tuning == "lora" else "transformers",
        pipeline_tag="text-generation",
        tags=["preflow", *(stage for stage, _ in recipe.training_sections)],
        model_name=recipe.name,
        eval_results=results,
    )
    body = "\n".join(_body(facts, result))
    return str(ModelCard.from_template(data, template_str=_TEMPLATE, body=body).content)


def _body(facts: CardFacts, result: str) -> Iterable[str]:
    recipe = facts.recipe
    yield f"# {recipe.name}"
    if recipe.description:
        yield f"\n{recipe.description}"
    yield f"\n{_short(str(recipe.model_name))} after {', then '.join(s.upper() for s, _ in recipe.training_sections)}."
    yield f"\n## Base\n\n{_short(str(recipe.model_name))}, digest of its weights `{facts.base_digest}`."
    yield "\n## Data\n"
    yield from _data(facts.data)
    yield "\n## Stages\n"
    yield from _table(("stage", "digest of its artifact"), [(n, f"`{d}`") for n, d in facts.stages.items()])
    yield "\n## Measures on held-out rows\n"
    yield from _measures(facts.evaluation)
    if facts.benchmarks is not None:
        yield "\n## Benchmarks\n"
        yield from _benchmarks(facts.benchmarks)
    if facts.judge is not None:
        yield "\n## Judge\n"
        yield from _judge(facts.judge)
    yield "\n## Promotion\n"
    yield from _promotion(recipe)
    yield "\n## Limits\n"
    yield from (f"- {text}" for text in facts.evaluation["warnings"])
    there = {"benchmark": facts.benchmarks, "judge": facts.judge}
    others = [f"no {name}" for name, found in there.items() if found is None]
    nothing_else = f", and on nothing else: {' and '.join(others)} took part" if others else ""
    yield (
        f"- Measured on held-out rows of the same kind of data as the training rows{nothing_else}. Reviews by people "
        "and decisions follow where there are any."
    )


def _benchmarks(report: Mapping[str, Any]) -> Iterable[str]:
    """Every model's mean on each task, and the last one's paired difference to the one that it was trained from."""
    rows = []
    for task, found in report.items():
        delta = found.get("delta")
        gain = (
            "" if delta is None else f"{_value(delta['difference'])}, p = {delta['adjusted_p']:.3g} ({delta['test']})"
        )
        models = "; ".join(f"{name} {_value(share)}" for name, share in found["models"].items())
        rows.append((task, found["metric"], str(found["documents"]), models, gain))
    yield from _table(("task", "metric", "documents", "models", "difference, Holm over tasks"), rows)


def _promotion(recipe: Recipe) -> Iterable[str]:
    """By what the recipe lets its model become the champion."""
    settings = recipe.promotion
    guards = [f"{name} {limit:g}" for name, limit in settings.guards.model_dump().items() if limit is not None]
    yield (
        f"Registered as {recipe.registered_model}. Primary measure: {settings.primary.replace('_', ' ')}, alpha "
        f"{settings.alpha:g}, least gain {settings.min_gain:g}. Guards: {', '.join(guards)}. Approval by a person: "
        f"{settings.approval}."
    )


def _judge(report: Mapping[str, Any]) -> Iterable[str]:
    """What it is, how it agrees with people, and its win rate or why there is none."""
    judge, test = report["judge"], report["test"]
    agreement = _value(test["accuracy"]) or "unknown"
    fit = "fit" if test["fit"] else f"unfit ({test['reason']})"
    yield (
        f"{judge['kind']} {judge.get('model', '')}: agrees with people on {agreement} of {test['pairs']} held-out "
        f"pairs, so it is {fit}."
    )
    rows = [("consistency, both orders", "consistency"), ("verdicts for the answer shown first", "first_share")]
    rows += [("effect of relative length on the log-odds", "length_slope"), ("unreadable pairs", "unreadable")]
    if orders := test.get("orders"):
        rows.append((f"planted orders obeyed, of {orders['pairs']}", "obeyed"))
        test = {**test, "obeyed": orders["obeyed"]}
    yield ""
    yield from _table(("test on human pairs", "value"), [(label, _value(test.get(key))) for label, key in rows])
    if "win_rate" in report:
        new, old = report["models"]
        at_length = _value(report.get("win_rate_lc")) or f"none ({report.get('win_rate_lc_reason', '')})"
        yield f"\nWin rate of {new} over {old}: {_value(report['win_rate'])} on {report['prompts']} prompts."
        yield f"\nAt equal length: {at_length}."
    elif "reason" in report:
        yield f"\nNo win rate: {report['reason']}."


def _data(report: Mapping[str, Any]) -> Iterable[str]:
    rows = []
    for kind in ("demonstrations", "preferences"):
        if kind in report:
            found = report[kind]
            counts = [found[name] for name in ("rows_in", "train")]
            counts += [found.get("validation", 0), found["eval"], found["set_aside"]]
            rows.append((kind, *(f"{count:,}" for count in counts)))
    yield from _table(("rows", "in", "training", "validation", "test", "quarantined"), rows)
    reasons = [
        f"{entry['set_aside']:,} {kind} by {name.replace('_', ' ')}"
        for kind in ("demonstrations", "preferences")
        for name, entry in sorted(report.get(kind, {}).get("findings", {}).items())
        if entry["set_aside"]
    ]
    if reasons:
        yield f"\nQuarantined: {'; '.join(reasons)}."


def _measures(evaluation: Mapping[str, Any]) -> Iterable[str]:
    models = {name: evaluation["models"][name] for name in _MODELS if name in evaluation["models"]}
    rows = [
        (label, *(_value(found.get(key)) for found in models.values()))
        for key, label in _MEASURES.items()
        if any(key in found for found in models.values())
    ]
    yield from _table(("measure", *models), rows)
    level = f"{evaluation['confidence']:.0%} intervals"
    yield f"\nn = {evaluation['n_pairs']} held-out pairs; {level}; ± is a standard error."
    if "comparison" in evaluation:
        gain = evaluation["comparison"]["preference_accuracy_gain"]
        yield (
            f"\nGain in preference accuracy over {evaluation['reference']}, paired: {_value(gain)}, "
            f"p = {gain['p']:.3g} ({gain['test']})."
        )
    if "power" in evaluation:
        power = evaluation["power"]
        yield (
            f"\n{power['prompts']} prompts show differences of {100 * power['visible_difference']:.1f} points and more."
        )


def _value(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        return f"{value:.4g}"
    if "low" in value:
        return f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
    return f"{value['value']:.4f} ± {value['se']:.4f}" if "se" in value else f"{value['value']:.4f}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _short(model: str) -> str:
    """A model's name; of a folder its last part."""
    return Path(model).name if Path(model).is_absolute() else model
