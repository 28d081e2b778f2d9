"""What a run is going to do is settled before anything starts."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from peft import LoraConfig, get_peft_model
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from expectations.gate import run_gate
from flows.commands import plan as plan_command
from flows.planning import devices, tables
from flows.planning.row_lengths import lengths, read_model
from flows.running.preparation import PreparedRun, prepare_run
from flows.running.terminal import parse_overrides
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.data.tokens.chat_template import Renderer
from preflow.data.tokens.tokenize import tokenize_demonstrations, tokenize_pairs
from preflow.data.validated import Split, load_demonstrations, load_pairs
from preflow.errors import ConfigError, DataFileError, MissingDependencyError, ModelError
from preflow.estimates.memory import Memory
from preflow.estimates.scoring import proof_memory
from preflow.models.loading import load_tokenizer
from preflow.observer import Silent
from tasks.runtime.progress import CONSOLE
from tests.unit.data.prompt_hashes import is_held_out, prompt_hash


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "sft.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "dpo.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    path = tmp_path / "mine.yaml"
    path.write_text("model_name: m\nsft: {dataset: sft.jsonl}\ndpo: {dataset: dpo.jsonl}\n")
    return path


def test_a_plan_has_the_data_with_their_digests(recipe: Path) -> None:
    plan = prepare_run(recipe, {"dpo.eval_split": "0.25"})
    assert plan.recipe.name == "mine"
    assert [Path(s.path).name for s in plan.sources.demonstrations] == ["sft.jsonl"]
    assert [Path(s.path).name for s in plan.sources.preferences] == ["dpo.jsonl"]
    assert (plan.sources.sft_eval_split, plan.sources.dpo_eval_split) == (0.1, 0.25)
    assert plan.runs("sft")
    assert plan.runs("dpo")


def test_one_strategy_plans_one_training_stage(recipe: Path) -> None:
    recipe.write_text("strategy: dpo\nmodel_name: m\ndataset: dpo.jsonl\n")
    plan = prepare_run(recipe)
    assert not plan.runs("sft")
    assert plan.sources.demonstrations == ()


def test_what_is_missing_is_named(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="model_name"):
        prepare_run(recipe, {"model_name": None})
    with pytest.raises(DataFileError, match=r"absent\.jsonl"):
        prepare_run(recipe, {"dpo.dataset": "absent.jsonl"})
    with pytest.raises(MissingDependencyError, match="unsloth"):
        prepare_run(recipe, {"provider": "unsloth"})


def test_a_start_from_an_aligned_model_is_said(recipe: Path, tmp_path: Path) -> None:
    """It is allowed, but whoever takes the wrong folder learns of it."""
    model = tmp_path / "model"
    model.mkdir()
    for stage, said in (("dpo", True), ("sft", False)):
        (model / "preflow.json").write_text(f'{{"stage": "{stage}"}}')
        lines = [line for line in prepare_run(recipe, {"model_name": str(model)}).advice if "DPO stage" in line]
        assert bool(lines) == said


def test_overrides_are_names_and_values() -> None:
    assert parse_overrides(["dpo.beta=0.2", "name=a=b"]) == {"dpo.beta": "0.2", "name": "a=b"}
    for wrong in ("dpo.beta", "=0.2"):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            parse_overrides([wrong])


@pytest.mark.slow
def test_a_flow_starts_without_what_only_training_needs() -> None:
    """A run of which every stage is cached ends in seconds: it must not wait for a trainer to be imported."""
    heavy = ("transformers", "trl", "peft", "bitsandbytes", "datasets", "mlflow", "great_expectations", "matplotlib")
    code = f"import sys, flows.two_stage; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[4]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip().splitlines()[-1] == "[]"


def test_a_forecast_is_printed_without_loading_weights(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weight is loaded: a machine that could not hold the model can plan for one that can."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    with CONSOLE.capture() as printed:
        tables.show(prepare_run(tiny_recipe_file()), memory=None, rate=1.0)
    assert "sft: fits this machine" in printed.get()
    assert "reference: fits this machine" in printed.get()
    assert "evaluate: fits this machine" in printed.get()
    with CONSOLE.capture() as printed:
        tables.show(prepare_run(tiny_recipe_file()), memory=1e-6, rate=1.0)
    assert "dpo: does NOT fit a card of 1e-06 GB" in printed.get()


def test_times_are_operations_at_the_given_rate(tiny_recipe_file: Callable[..., Path]) -> None:
    """At 10 MFLOP/s, in minutes: of training what it trains with, of what only scores its forward."""
    with CONSOLE.capture() as printed:
        tables.show(prepare_run(tiny_recipe_file()), memory=None, rate=1e-5)
    rows = [[cell.strip() for cell in re.split("[│|]", line)] for line in printed.get().splitlines()]
    timed = {cells[1]: cells for cells in rows if cells[-2:][0].endswith("min")}
    assert {"sft", "dpo", "dpo: proof", "reference", "evaluate"} <= set(timed)
    for stage, cells in timed.items():
        operations = float(cells[-3] if stage in ("sft", "dpo") else cells[-4])
        assert float(cells[-2].removesuffix(" min")) == pytest.approx(operations / 1e7 / 60, rel=0.01, abs=0.06), stage


def test_parts_of_memory_and_the_cards_that_have_room_are_told() -> None:
    """18 GiB are 19.3 GB, of which a card of 24 can give 22; a stage that halves fits a smaller one."""
    parts = {"weights": 1, "adapter": 2, "gradients": 3, "optimizer": 4, "activations": 5, "logits": 0.5}
    memory = Memory(**{name: gib * 2.0**30 for name, gib in {**parts, "workspace": 0.75, "heap": 1.75}.items()})
    small = Memory(*[0.0] * 7)
    device = devices.device_for(Recipe.model_validate({"model_name": "m"}), 24, None)
    forecast = tables.Tables(Table(), {}, [])
    assert forecast.add_memory("dpo", memory, lambda room: memory, device)
    assert forecast.add_memory("evaluate", memory, lambda room: small if room < 15e9 else memory, device)
    assert not forecast.add_memory("sft", memory, lambda room: memory, device._replace(room=19e9))
    assert forecast.verdicts[0].endswith("GB it fits 24, 80, 141")
    assert forecast.verdicts[1].endswith("GB it fits 12, 16, 24, 80, 141")
    with CONSOLE.capture() as printed:
        CONSOLE.print(forecast.parts(device))
    found = dict(re.findall(r"│ (\w+) +│ +([\d.]+) ", printed.get()))
    shown = {"workspace": "0.75", "heap": "1.75", "logits": "0.50", "peak": "18.00"}
    assert found == {"weights": "1.00", "adapter": "2.00", "gradients": "3.00", "optimizer": "4.00",
                     "activations": "5.00", **shown}  # fmt: skip


def test_a_card_that_is_only_named_gets_no_time_of_this_machine(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this machine's CPU can do says nothing about a card; with its own rate it has a time."""
    monkeypatch.setattr(devices, "measured_rate", lambda: pytest.fail("this machine's rate was asked for"))
    with CONSOLE.capture() as printed:
        tables.show(prepare_run(tiny_recipe_file()), memory=24, rate=None)
    assert " min" not in printed.get()
    assert "Give --rate" in printed.get()
    with CONSOLE.capture() as printed:
        tables.show(prepare_run(tiny_recipe_file()), memory=24, rate=100.0)
    assert " min" in printed.get()
    assert "100.00 TFLOP/s (given)" in " ".join(printed.get().split())


def test_the_command_prints_a_plan_for_a_named_device(tiny_recipe_file: Callable[..., Path]) -> None:
    """A CPU can be named where there is a card; a recipe that cannot be read is exit code 2."""
    app = typer.Typer()
    app.command()(plan_command.main)
    recipe = str(tiny_recipe_file())
    for options, told in (
        (["--device", "cpu", "--memory", "8"], "dpo: fits a CPU of 8 GB"),
        (["--device", "cpu", "--rate", "1"], "dpo: fits this machine (cpu,"),
        (["--memory", "80", "--set", "dpo.beta=0.3"], "dpo: fits a card of 80 GB"),
    ):
        with CONSOLE.capture() as printed:
            result = CliRunner().invoke(app, [recipe, *options])
        assert result.exit_code == 0, result.output
        assert told in printed.get()
    assert CliRunner().invoke(app, [recipe, "--set", "dpo.betta=0.3"]).exit_code == 2


def test_a_rate_is_measured_in_the_numbers_that_the_recipe_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.dtype] = []
    ones = torch.ones

    def heard(*sizes: int, **options: Any) -> torch.Tensor:
        made.append(options["dtype"])
        return ones(8, 8, **options)

    monkeypatch.setattr(torch, "ones", heard)
    for bf16, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        recipe = Recipe.model_validate({"model_name": "m", "bf16": bf16})
        assert devices.measured_rate(devices.on_a_cpu(recipe)) > 0
        assert made[-1] == dtype


def test_a_proof_that_does_not_fit_names_what_would(tiny_recipe_file: Callable[..., Path]) -> None:
    """Whole weights in float32, pair by pair, on a card of a tenth of a megabyte more than packed ones take."""
    plan = prepare_run(tiny_recipe_file(), {"tuning": "full", "bf16": "false"})
    shapes = tables.shapes_of(plan.recipe, read_model(plan.recipe))
    packed = plan.recipe.model_copy(update={"tuning": "lora", "use_4bit": True})
    assert plan.recipe.dpo is not None
    rows = lengths(plan, read_model(plan.recipe))["dpo"].train
    card = devices.on_a_card(packed)
    ways = plan.recipe, packed
    needs = [proof_memory(shapes["dpo"], r, plan.recipe.dpo, rows, card, room=0.0).total for r in ways]
    assert needs[1] < needs[0] < proof_memory(shapes["dpo"], plan.recipe, plan.recipe.dpo, rows, card).total
    with CONSOLE.capture() as printed:
        tables.show(plan, memory=sum(needs) / 2 / 1e9 / devices.USABLE, rate=1.0)
    told = " ".join(printed.get().split())
    assert "dpo: proof: does NOT fit" in told
    assert "GB; nearest setting that does: tuning: lora" in told.partition("dpo: proof: does NOT fit")[2]


def gated(plan: PreparedRun, out: Path) -> Artifact:
    """What the gate makes of a plan's data."""
    out.mkdir()
    run_gate(plan.sources, out, Silent())
    return Artifact(path=str(out), digest="", bytes=0)


def test_rows_train_and_are_held_out_as_the_gate_has_it(tiny_recipe_file: Callable[..., Path], tmp_path: Path) -> None:
    """Files sorted by length, and a demonstration whose prompt is held out among the pairs, which the gate moves out.

    The lengths of the plan's rows are those of the rows that the gate wrote.
    """
    file = tiny_recipe_file()
    preferences, demonstrations = tmp_path / "preferences.jsonl", tmp_path / "demonstrations.jsonl"
    rows = sorted(preferences.read_text().splitlines(), key=len)
    preferences.write_text("\n".join(rows) + "\n")
    prompt = next(p for p in (json.loads(row)["prompt"] for row in rows) if is_held_out(prompt_hash(p), 0.2))
    with demonstrations.open("a") as more:
        more.write(json.dumps({"prompt": prompt, "completion": "assistant refund"}) + "\n")
    plan = prepare_run(file, {"sft.eval_split": "0.01"})
    model = read_model(plan.recipe)
    data, seen = gated(plan, tmp_path / "gate"), lengths(plan, model)
    renderer = Renderer(load_tokenizer(model, plan.recipe), plan.recipe.template)
    sides: tuple[Split, ...] = ("train", "eval")
    for side in sides:
        texts, _ = tokenize_demonstrations(load_demonstrations(data, side), renderer, 256, "drop")
        pairs, _ = tokenize_pairs(load_pairs(data, side), renderer, 256, "drop")
        got = [sorted(getattr(seen[stage], "train" if side == "train" else "held_out")) for stage in ("sft", "dpo")]
        assert got[0] == sorted((len(row.input_ids), sum(row.response_mask)) for row in texts)
        assert got[1] == sorted((len(row.prompt_ids), len(row.chosen_ids), len(row.rejected_ids)) for row in pairs)
    assert len(seen["dpo"].held_out) > 0
    assert len(seen["sft"].train) + len(seen["sft"].held_out) == len(demonstrations.read_text().splitlines()) - 1


def test_a_plan_starts_from_an_adapter_as_a_run_does(
    tiny_recipe_file: Callable[..., Path], tiny_folder: Path, tmp_path: Path
) -> None:
    """The base's configuration and tokenizer, the adapter's own modules; one of another rank is refused."""
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    config = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"])
    get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    changes = {"model_name": str(tmp_path / "adapter"), "sft.lora_alpha": 32, "dpo.lora_alpha": 32}
    plan = prepare_run(tiny_recipe_file(), changes)
    model = read_model(plan.recipe)
    shape = tables.shapes_of(plan.recipe, model)["dpo"]
    assert shape.adapted == 2 * base.config.num_hidden_layers
    with CONSOLE.capture() as printed:
        tables.show(plan, memory=12, rate=1.0)
    assert "dpo: fits a card of 12 GB" in printed.get()
    with pytest.raises(ConfigError, match="lora_r is 8 but the adapter"):
        read_model(prepare_run(tiny_recipe_file(), {**changes, "sft.lora_r": 8, "dpo.lora_r": 8}).recipe)


def test_a_plans_tokenizer_may_bring_its_own_code_where_the_recipe_says_so(
    tiny_recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    own = AutoTokenizer.from_pretrained

    def heard(*args: Any, **options: Any) -> Any:
        asked.append(options.get("trust_remote_code"))
        return own(*args, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", heard)
    plan = prepare_run(tiny_recipe_file(), {"trust_remote_code": "true"})
    lengths(plan, read_model(plan.recipe))
    assert asked == [True]


def test_the_printed_numbers_are_the_datas_own(tiny_recipe_file: Callable[..., Path]) -> None:
    """Rows trained on and steps; every stage has its line, and so have proof and looks."""
    plan = prepare_run(tiny_recipe_file())
    with CONSOLE.capture() as printed:
        tables.show(plan, memory=None, rate=1.0)
    lines = {
        cells[1]: cells[2:-1]
        for line in printed.get().partition("At the peak, on")[0].splitlines()
        if len(cells := [cell.strip() for cell in line.replace("┃", "│").split("│")]) > 9 and cells[1]
    }
    for stage, section in plan.recipe.training_sections:
        kept = len(lengths(plan, read_model(plan.recipe))[stage].train)
        per_step = section.per_device_train_batch_size * section.gradient_accumulation_steps
        assert lines[stage][0] == f"{kept:,}"
        if section.max_steps < 0:
            assert lines[stage][3] == f"{math.ceil(math.ceil(kept / per_step) * section.num_train_epochs):,}"
    assert {"dpo: proof", "dpo: looks", "reference", "evaluate"} <= set(lines)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model_name": "./no-such"}, r"model_name .*no-such.* is no folder"),
        ({"model_name": "nobody/nothing"}, r"model_name .nobody/nothing.* is no folder .* the hub gave"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_clear_error(
    tiny_recipe_file: Callable[..., Path], options: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    plan = prepare_run(tiny_recipe_file())
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update=options)})
    with pytest.raises(ModelError, match=told):
        tables.show(plan, memory=16, rate=1.0)


def test_a_folder_without_a_configuration_is_one_clear_error(
    tiny_recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    plan = prepare_run(tiny_recipe_file())
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"model_name": str(tmp_path)})})
    with pytest.raises(ModelError, match="no configuration can be read"):
        tables.show(plan, memory=16, rate=1.0)
