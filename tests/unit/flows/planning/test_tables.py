"""The plan as people read it."""

import json
import math
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from flows.planning import devices
from flows.planning.devices import Device, on_gpu
from flows.planning.row_lengths import read_lengths, read_model
from flows.planning.stages import StageEstimate, Suggestion
from flows.planning.tables import RunEstimate, memory_table, print_plan, smallest_gpu, suggestion_line, verdict
from flows.running.preparation import prepare_run
from preflow.config import Recipe
from preflow.errors import ModelError
from preflow.estimates.memory import Memory
from preflow.estimates.scoring import BatchedMemory

RECIPE = Recipe.model_validate({"model_name": "m"})
NOTHING = Memory(*[0.0] * 7)


def printed(file: Path, width: int = 100, **options: Any) -> str:
    """The plan of a recipe, in a terminal of so many columns."""
    out = StringIO()
    print_plan(
        prepare_run(file),
        options.pop("memory", None),
        options.pop("rate", None),
        console=Console(file=out, width=width),
    )
    return out.getvalue()


def estimate(name: str, memory: Memory, smaller: Memory | None = None) -> StageEstimate:
    """A stage that needs ``memory``, or, with less than 15 GB available, ``smaller``."""

    def peak(recipe: Any, precision: Any, available: float) -> BatchedMemory:
        if smaller is not None and available < 15e9:
            return BatchedMemory(smaller, 8, "prompts", halved=True)
        return BatchedMemory(memory, 16, "prompts")

    return StageEstimate(name, 10, 1e12, peak, rows=3)


def run(available: float, *stages: StageEstimate) -> RunEstimate:
    device = Device("a GPU of 24 GB", on_gpu(RECIPE), available, None)
    needs = {stage.name: need for stage in stages if (need := stage.memory_on(RECIPE, device)) is not None}
    return RunEstimate(RECIPE, device, stages, needs, padded=False)


def memory(gigabytes: float) -> Memory:
    return Memory(gigabytes * 1e9, *[0.0] * 6)


def test_parts_of_memory_and_the_smallest_gpu_are_printed() -> None:
    """18 GB fit a GPU of 24, whose 22 are usable; a stage whose batches halve fits a smaller one."""
    parts = {"weights": 1, "adapter": 2, "gradients": 3, "optimizer": 4, "activations": 5, "logits": 0.5}
    full = Memory(**{name: gigabytes * 1e9 for name, gigabytes in {**parts, "workspace": 0.75, "heap": 1.75}.items()})
    dpo, evaluate = estimate("dpo", full), estimate("evaluate", full, smaller=NOTHING)
    assert smallest_gpu(dpo, RECIPE) == "24 GB"
    assert smallest_gpu(evaluate, RECIPE) == "12 GB"
    assert smallest_gpu(estimate("sft", memory(1000)), RECIPE) == "none"
    out = StringIO()
    Console(file=out, width=100).print(memory_table(run(22e9, dpo)))
    found = dict(re.findall(r"(\w+) +([\d.]+) *\n", out.getvalue()))
    shown = {"workspace": "0.75", "heap": "1.75", "logits": "0.50", "peak": "18.00"}
    assert found == {"weights": "1.00", "adapter": "2.00", "gradients": "3.00", "optimizer": "4.00",
                     "activations": "5.00", **shown}  # fmt: skip


def test_the_verdict_is_one_line_and_names_halved_batches_or_what_does_not_fit() -> None:
    small, halves, large = estimate("sft", memory(5)), estimate("evaluate", memory(5), memory(4)), memory(30)
    assert verdict(run(22e9, small)) == "Fits a GPU of 24 GB."
    assert verdict(run(10e9, small, halves)) == "Fits a GPU of 24 GB, evaluate with batches halved to 8 prompts."
    assert verdict(run(22e9, small, estimate("dpo", large))) == (
        "Does NOT fit a GPU of 24 GB: dpo needs 30.0 GB; 22.0 GB are usable."
    )


def test_the_suggestion_is_one_line_of_settings_to_paste() -> None:
    found = Suggestion(RECIPE, {"use_4bit": True, "dpo.max_seq_length": 512}, 12, 3)
    assert suggestion_line(found) == (
        "Nearest settings that fit: --set use_4bit=true --set dpo.max_seq_length=512 (cuts the prompts of 12 rows and "
        "drops 3)"
    )
    assert suggestion_line(None).startswith("No setting is known with which it fits")


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_is_printed_without_loading_weights(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """A machine that could not hold the model can plan for one that can; a stage keeps to one row of the terminal."""
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    lines = printed(tiny_recipe_file(), width, rate=1.0).splitlines()
    assert lines[-1].startswith("Fits this machine")
    for stage in ("sft", "dpo", "dpo start checks", "dpo held-out eval", "reference", "evaluate"):
        assert [line for line in lines if re.match(rf" ?{stage}  ", line)], stage
    assert not [line for line in lines if line.startswith("Nearest") or "NOT" in line]


def test_a_plan_says_once_what_the_chat_template_does_to_rows(tiny_recipe_file: Callable[..., Path]) -> None:
    """A template without a system turn, which one of the demonstrations has."""
    template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    recipe = tiny_recipe_file(chat_template=template)
    rows = recipe.parent / "demonstrations.jsonl"
    with rows.open("a") as more:
        more.write(json.dumps({"system": "Be kind.", "prompt": "A new one?", "completion": "assistant refund"}) + "\n")
    notes = [line for line in printed(recipe, 200, rate=1.0).splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: sft: 1 of ")
    assert "the chat template has no system turn" in notes[0]


def test_a_plan_that_does_not_fit_has_one_verdict_and_one_suggestion(tiny_recipe_file: Callable[..., Path]) -> None:
    lines = printed(tiny_recipe_file(), memory=1e-6, rate=1.0).splitlines()
    assert len([line for line in lines if line.startswith("Does NOT fit a GPU of 1e-06 GB")]) == 1
    assert lines[-1].startswith("No setting is known")


def test_times_are_flops_at_the_given_rate(tiny_recipe_file: Callable[..., Path]) -> None:
    """At 10 MFLOP/s: FLOPs are printed with two digits, so the time is theirs within 6 %, to the last unit shown."""
    text = printed(tiny_recipe_file(), rate=1e-5)
    found = re.findall(r"(\d\.\de\+\d\d) +((?:\d+ (?:h|min|s) ?)+)", text)
    assert len(found) == 6
    for flops, time in found:
        parts = {unit: int(count) for count, unit in re.findall(r"(\d+) (h|min|s)", time)}
        seconds = 3600 * parts.get("h", 0) + 60 * parts.get("min", 0) + parts.get("s", 0)
        assert seconds == pytest.approx(float(flops) / 1e7, rel=0.06, abs=60 if "h" in parts else 1)


def test_a_target_gpu_gets_no_time_of_this_machine(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's rate says nothing about a GPU that is not here; with its own rate it has a time."""
    monkeypatch.setattr(devices, "measured_rate", lambda _: pytest.fail("this machine's rate was measured"))
    without = printed(tiny_recipe_file(), 200, memory=24)
    assert "FLOPs  peak GB" in without, "the column of times is left out"
    assert "No time without --rate" in without
    assert "Time is FLOPs at 100.00 TFLOP/s (given)" in printed(tiny_recipe_file(), 200, memory=24, rate=100.0)


def test_the_printed_numbers_are_the_datas_own(tiny_recipe_file: Callable[..., Path]) -> None:
    """Rows trained on, and steps: rows in batches of the effective size, each epoch rounded up."""
    file = tiny_recipe_file()
    text, prepared = printed(file, rate=1.0), prepare_run(file)
    for stage, section in prepared.recipe.training_sections:
        kept = len(read_lengths(prepared, read_model(prepared.recipe))[stage].train)
        per_step = section.per_device_train_batch_size * section.gradient_accumulation_steps
        steps = math.ceil(math.ceil(kept / per_step) * section.num_train_epochs)
        (row,) = re.findall(rf"^ ?{stage} +(\d+) +[\d,]+ +(\d+)", text, re.M)
        assert row == (str(kept), str(steps))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("./no-such", r"model_name .*no-such.* is no folder"),
        ("no-owner/nothing", r"model_name .no-owner/nothing.* is no folder .* the hub gave"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_clear_error(
    tiny_recipe_file: Callable[..., Path], name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    prepared = prepare_run(tiny_recipe_file())
    prepared = prepared.model_copy(update={"recipe": prepared.recipe.model_copy(update={"model_name": name})})
    with pytest.raises(ModelError, match=reason):
        print_plan(prepared, 16, 1.0)
