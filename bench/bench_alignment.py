"""What the chain learns from public preference pairs: base, SFT and DPO model on four sets, with TRL's trainer beside.

``python -m bench.bench_alignment --data FOLDER [--quick] [--set NAME]`` trains SmolLM2-135M-Instruct on at most 600
pairs of each set, at the learning rate that the range test chooses, compares the losses of 50 steps with those of TRL's
own trainer, and prints a table, what the diagnosis finds, and last one JSON line. ``--quick`` takes the first set
alone, with 120 pairs. What was computed is found again, so a stopped benchmark goes on. FOLDER holds the files that
``SETS`` names.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.parts.alignment_chain import Values, run_chain
from preflow.config import Recipe

PAIRS, QUICK_PAIRS = 600, 120
TRL_STEPS, QUICK_TRL_STEPS = 50, 5
#: The target: what this many sets should show.
TARGETS = {"reward_above_chance": 3, "preference_gain": 2, "kl_below_10": 4}


@dataclass(frozen=True, slots=True)
class PublicSet:
    """A set of pairs, and the demonstrations that SFT sees first.

    Attributes:
        pairs: File of the pairs.
        demonstrations: File of the demonstrations; none for DPO alone.
        length: Most tokens of a row.
    """

    pairs: str
    demonstrations: str | None = None
    length: int = 384


SETS = {
    "harmless": PublicSet("hh_harmless_test.messages.jsonl"),
    "polite": PublicSet("rasbt_polite.prefs.jsonl", "rasbt_instruct.sft.jsonl", 192),
    "correctness": PublicSet("gsm8k_correctness.prefs.jsonl", "gsm8k_train.sft.jsonl"),
    "mixed": PublicSet("llamafactory_dpo_demo.messages.jsonl", length=512),
}


def main(
    data: Annotated[Path, typer.Option(help="Folder with the files of the sets.")],
    quick: Annotated[bool, typer.Option("--quick", help="The first set alone, with few pairs.")] = False,
    only: Annotated[list[str] | None, typer.Option("--set", help="Sets by name; all where not given.")] = None,
    model: Annotated[str, typer.Option(help="The model that is aligned.")] = "SmolLM2-135M-Instruct",
    zero_a: Annotated[bool, typer.Option("--zero-a", help="DPO alone also with init_lora_weights zero_a.")] = False,
    trl_steps: Annotated[int, typer.Option(min=0, help="Steps of TRL's trainer; 0 leaves it out.")] = TRL_STEPS,
) -> None:
    """Run every set and report."""
    names = only or (list(SETS)[:1] if quick else list(SETS))
    pairs, steps = (QUICK_PAIRS, min(QUICK_TRL_STEPS, trl_steps)) if quick else (PAIRS, trl_steps)
    found = {}
    for name in names:
        found[name] = measured(recipe_of(name, SETS[name], data, model, pairs), steps)
        if zero_a and SETS[name].demonstrations is None:  # after SFT, DPO goes on with its adapter
            recipe = recipe_of(name, SETS[name], data, model, pairs, init_lora_weights="zero_a")
            found[f"{name}, zero_a"] = measured(recipe, 0)
    report(found)


def measured(recipe: Recipe, steps: int) -> Values:
    """What one chain came to."""
    print(recipe.name, flush=True)
    return run_chain(recipe, steps)


def recipe_of(name: str, files: PublicSet, folder: Path, model: str, pairs: int, **changes: Any) -> Recipe:
    """The recipe of a set: a fifth of the prompts is the test, a tenth the validation."""
    training = {"eval_split": 0.2, "gradient_accumulation_steps": 1, "max_seq_length": files.length}
    dpo = {
        **training,
        "dataset": {"path": str(folder / files.pairs), "rows": pairs},
        "validation_split": 0.1,
        "learning_rate": "auto",
        "per_device_train_batch_size": 4,
        **changes,
    }
    sft = {
        **training,
        "dataset": {"path": str(folder / str(files.demonstrations)), "rows": pairs},
        "per_device_train_batch_size": 8,
    }
    return Recipe.model_validate(
        {
            "name": f"alignment-{name}",
            "strategy": "dpo" if files.demonstrations is None else "two-stage",
            "model_name": model,
            "dpo": dpo,
            **({} if files.demonstrations is None else {"sft": sft}),
            "evaluation": {"kl_prompts": 32, "max_new_tokens": 64},
        }
    )


def report(found: dict[str, Values]) -> None:
    """Print the table, the findings, and the targets as one JSON line."""
    print("| set | pairs | rate | preference accuracy: base, SFT, DPO | gain | length-matched | reward accuracy | KL |")
    print("|---|---|---|---|---|---|---|---|")
    for name, values in found.items():
        print(f"| {' | '.join([name, *cells(values)])} |")
    for name, values in found.items():
        dpo = values["models"]["dpo"]
        chosen, rejected = (dpo[f"{side}_logp_change"]["value"] for side in ("chosen", "rejected"))
        print(f"{name}: {values['seconds']:.0f} s; log-prob per token, chosen {chosen:+.3f}, rejected {rejected:+.3f}")
        if "trl" in values:
            beside = values["trl"]
            print(f"  TRL's own trainer, {beside['steps']} steps: losses differ by {beside['largest_difference']:.1e}")
        for finding in values["diagnosis"]:
            print(f"  {finding['name']}: {finding['evidence']}. Try {finding['remedy']}")
    print(json.dumps(summary(found)))


def cells(values: Values) -> list[str]:
    """One set's line of the table."""
    models, dpo = values["models"], values["models"]["dpo"]
    shares = [f"{models[name]['preference_accuracy']['value']:.2f}" if name in models else "–" for name in MODELS]
    matched = dpo.get("preference_accuracy_length_matched")
    return [
        f"{values['training_pairs']} + {values['n_pairs']}",
        f"{values['learning_rate']:g}",
        ", ".join(shares),
        _gain(values["comparison"]["preference_accuracy_gain"]),
        _interval(matched, ".2f") if matched else "",
        _interval(dpo["reward_accuracy"], ".2f"),
        f"{_kl(values):.2f}",
    ]


MODELS = ("base", "sft", "dpo")


def summary(found: dict[str, Values]) -> Values:
    """What every set came to, and on how many the targets are met."""
    sets = {}
    for name, values in found.items():
        dpo, gain = values["models"]["dpo"], values["comparison"]["preference_accuracy_gain"]
        sets[name] = {
            "learning_rate": values["learning_rate"],
            "reward_accuracy": dpo["reward_accuracy"],
            "preference_gain": gain,
            "kl": _kl(values),
            "seconds": values["seconds"],
            "findings": [finding["name"] for finding in values["diagnosis"]],
        }
    plain = [each for name, each in sets.items() if not name.endswith("zero_a")]  # the same sets once more
    met = {
        "reward_above_chance": sum(each["reward_accuracy"]["low"] > 0.5 for each in plain),
        "preference_gain": sum(each["preference_gain"]["low"] > 0 for each in plain),
        "kl_below_10": sum(each["kl"] < 10 for each in plain),
    }
    return {"sets": sets, **met, "targets": TARGETS}


def _kl(values: Values) -> float:
    return float(values["models"]["dpo"][f"kl_{values['reference']}"]["value"])


def _gain(value: dict[str, float]) -> str:
    """With the test that counts prompts: of few changes of one sign every resample has the same sign."""
    return f"{_interval(value, '+.3f')}, p = {value['p']:.2g}"


def _interval(value: dict[str, float], form: str) -> str:
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


if __name__ == "__main__":
    typer.run(main)
