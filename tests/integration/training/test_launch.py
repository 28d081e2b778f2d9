"""Two processes on the CPU train as one does: the same losses and weights for the same rows per step."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

import tasks.runtime.launcher
from preflow import distributed
from preflow.artifacts import build
from preflow.config import Launch, Recipe
from preflow.config.loading import load_recipe
from preflow.data.rows import Demonstration
from preflow.data.validated import rows_file, write_rows
from preflow.errors import ConfigError, TrainingError
from preflow.models.precision import Precision
from preflow.observer import Silent
from preflow.specs import ReferenceSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.ranks import load_full_weights_on_every_rank
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from preflow.training.arguments import apply_precision
from preflow.training.out_of_memory import retry_with_smaller_batches
from tasks.runtime.launcher import _accelerate, command
from tasks.runtime.processes import in_processes
from tests.fixtures.prepared_run import Run
from tests.unit.support import COMMON, recipe_for, rows

ROOT = Path(__file__).parents[3]
CPU = str(ROOT / "infra" / "accelerate" / "cpu.yaml")


class StepRecorder(Silent):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def metrics(self, values: object, step: int) -> None:
        self.steps.append(step)


def with_processes(run: Run, processes: int, budget: int | None = None, forwards: int = 1) -> Recipe:
    """An effective batch of four rows, distributed over the ranks and their micro-batches."""
    section = {
        **COMMON,
        "per_device_train_batch_size": 4 // processes // forwards,
        "learning_rate": 1e-3,
        "max_steps": 4,
    }
    section |= {"max_tokens_per_batch": budget, "gradient_accumulation_steps": forwards}
    recipe = recipe_for(run.base, sft=section, dpo={**section, "eval_steps": 2, "eval_pairs": 4})
    return recipe.model_copy(update={"launch": Launch(num_processes=processes, config=CPU if processes > 1 else None)})


def uneven(out: Path, count: int) -> None:
    """Data of 19 demonstrations and of ``count`` pairs: by four, three and others are left at the end of an epoch."""
    pairs = rows(range(count))
    demonstrations = [Demonstration(pair.prompt + pair.chosen, pair.source) for pair in pairs]
    write_rows(out / rows_file("demonstrations", "train"), demonstrations[:19])
    write_rows(out / rows_file("demonstrations", "eval"), demonstrations[19:])
    write_rows(out / rows_file("preferences", "train"), pairs)
    write_rows(out / rows_file("preferences", "eval"), rows(range(count, count + 4)))


@pytest.mark.parametrize(
    ("stage", "budget", "forwards", "count"),
    [
        pytest.param("sft", 40, 1, 21, marks=pytest.mark.nightly),
        pytest.param("dpo", None, 1, 21, marks=pytest.mark.nightly),
        pytest.param("dpo", 60, 1, 21, marks=pytest.mark.nightly),
        pytest.param("dpo", None, 2, 23, marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(
    prepared: Run,
    tmp_path: Path,
    stage: str,
    budget: int | None,
    forwards: int,
    count: int,
) -> None:
    """Also where a rank has several micro-batches in a step, one rank more of them than the other.

    And at the end of an epoch, where rows are left that do not go around: none runs twice, and a rank without any
    still does as many forwards as the other.
    """
    data = build(tmp_path / "data", lambda out: uneven(out, count))
    asked = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=data, sft=prepared.sft)
    if stage == "dpo":
        reference = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    observers = [StepRecorder(), StepRecorder()]
    for processes, observer in zip((1, 2), observers, strict=True):
        recipe = with_processes(prepared, processes, budget if processes > 1 else None, forwards)
        out = tmp_path / str(processes)
        section = {"max_steps": -1, "num_train_epochs": 2.0, "save_steps": 100}
        parts = {name: getattr(recipe, name).model_copy(update=section) for name in ("sft", "dpo")}
        recipe = recipe.model_copy(update=parts)
        out.mkdir()
        if stage == "sft":
            in_processes("sft", run_sft)(SftSpec(recipe=recipe, base=prepared.base, data=data), out, observer)
        else:
            in_processes("dpo", run_dpo)(prepared.dpo(recipe=recipe, data=data, reference=reference), out, observer)
    one, two = (json.loads((tmp_path / str(n) / "training.json").read_text()) for n in (1, 2))
    assert sum("loss" in entry for entry in one) == 2 * (5 if stage == "sft" else 6)
    assert ("eval_kl" in one[-2] or "eval_kl" in one[-1]) == (stage == "dpo")
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        first.pop("rewards/accuracies", None)  # of equal answers, as at the beginning, rounding prefers one
        assert {name: second[name] for name in first} == pytest.approx(first, rel=1e-3, abs=1e-4)
    assert observers[1].steps == observers[0].steps
    weights = [load_file(tmp_path / str(n) / "model" / "adapter_model.safetensors") for n in (1, 2)]
    for name, value in weights[0].items():
        assert float((weights[1][name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-6, name


@pytest.mark.nightly  # test_sharded reads the error of a failing rank each time
def test_the_error_of_a_failing_rank_is_reported(prepared: Run, tmp_path: Path) -> None:
    recipe = with_processes(prepared, 2)
    spec = SftSpec(recipe=recipe, base=prepared.base.model_copy(update={"path": "/nowhere"}), data=prepared.data)
    with pytest.raises(TrainingError, match=r"(?s)sft: accelerate launch ended with code 1.*nowhere"):
        in_processes("sft", run_sft)(spec, tmp_path, Silent())


def test_a_message_in_another_encoding_ends_no_training() -> None:
    _accelerate([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'Gr\\xfc\\xdfe\\n')"], "sft", Silent())


@pytest.mark.slow
def test_a_launch_that_runs_out_of_memory_is_launched_again(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With smaller forwards and the same rows per step: a process that tried again alone would be waited for."""
    tried = []

    def ended(arguments: list[str], stage: str, observer: object) -> None:
        given = SftSpec.model_validate_json(Path(arguments[-2]).read_text()).recipe.sft
        assert given is not None
        tried.append((given.per_device_train_batch_size, given.gradient_accumulation_steps))
        if len(tried) == 1:
            raise TrainingError("sft: ...\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(tasks.runtime.launcher, "_accelerate", ended)
    recipe = with_processes(prepared, 2)
    assert recipe.sft is not None
    recipe = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"auto_find_batch_size": True})})
    spec = SftSpec(recipe=recipe, base=prepared.base, data=prepared.data)
    in_processes("sft", run_sft)(spec, tmp_path, Silent())
    assert tried == [(2, 1), (1, 2)]

    def out_of_memory(_: Recipe) -> None:
        tried.append((0, 0))
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    with pytest.raises(RuntimeError, match="out of memory"):
        retry_with_smaller_batches(recipe, "sft", out_of_memory, Silent())
    assert tried.count((0, 0)) == 1


def test_fsdp_1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match=r"fsdp_version 1, expected 2: set it under fsdp_config"):
        load_full_weights_on_every_rank()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    load_full_weights_on_every_rank()
    assert "FSDP_CPU_RAM_EFFICIENT_LOADING" not in os.environ


def test_the_shipped_configurations_are_accelerates_own_and_recipes_use_them() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    files = sorted((ROOT / "infra" / "accelerate").glob("*.yaml"))
    assert [file.stem for file in files] == ["cpu", "ddp", "deepspeed-zero3", "fsdp"]
    kinds = [str(load_config_from_file(str(file)).distributed_type) for file in files]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["MULTI_GPU", "MULTI_GPU", "DEEPSPEED", "FSDP"]
    used = {load_recipe(file).launch.config for file in sorted((ROOT / "recipes").glob("llama-8b-full*.yaml"))}
    assert {str(ROOT / "infra" / "accelerate" / f"{name}.yaml") for name in ("fsdp", "deepspeed-zero3")} <= used


def flags(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The command line of a launch, by option."""
    words = command(recipe, "dpo", folder / "spec.json", folder)
    return {word: value for word, value in pairwise(words) if word.startswith("--")}


@pytest.mark.parametrize(("bf16", "mixed_precision"), [(True, "bf16"), (False, "no")])
def test_a_launch_receives_the_recipes_precision(
    prepared: Run, tmp_path: Path, bf16: bool, mixed_precision: str
) -> None:
    for file in (CPU, None):
        recipe = recipe_for(prepared.base, bf16=bf16).model_copy(
            update={"launch": Launch(num_processes=2, config=file)}
        )
        options = flags(recipe, tmp_path)
        assert options["--mixed_precision"] == mixed_precision
        assert options["--num_processes"] == "2"
        assert options["--config_file"] == (file or str(tmp_path / "accelerate.json"))


def test_a_launch_never_reads_the_users_own_configuration(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As accelerate itself understands the command, on a machine whose user once chose something else."""
    from accelerate.commands import launch as accelerates
    from accelerate.commands.config import config_args

    own = tmp_path / "default_config.yaml"
    own.write_text(
        "{compute_environment: LOCAL_MACHINE, distributed_type: FSDP, num_machines: 3, mixed_precision: bf16, "
        "dynamo_backend: INDUCTOR, fsdp_config: {fsdp_version: 2}}"
    )
    monkeypatch.setattr(accelerates, "default_config_file", str(own))
    monkeypatch.setattr(config_args, "default_config_file", str(own))
    recipe = recipe_for(prepared.base, bf16=False).model_copy(update={"launch": Launch(num_processes=2)})
    words = command(recipe, "dpo", tmp_path / "spec.json", tmp_path)
    given = accelerates.launch_command_parser().parse_args(words[words.index("accelerate.commands.launch") + 1 :])
    understood, _, _ = accelerates._validate_launch_command(given)
    assert (understood.multi_gpu, understood.use_fsdp, understood.num_machines) == (True, False, 1)
    assert (understood.mixed_precision, understood.dynamo_backend) == ("no", "no")


def test_a_launch_in_bfloat16_is_refused_where_the_recipe_comes_out_as_float32(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "own.yaml").write_text("{distributed_type: MULTI_GPU, mixed_precision: bf16}")
    launch = Launch(num_processes=2, config=str(tmp_path / "own.yaml"))
    recipe = recipe_for(prepared.base).model_copy(update={"launch": launch})
    with pytest.raises(
        ConfigError, match=r"says mixed_precision bf16, but the recipe's bf16 is 'auto', which is float32"
    ):
        command(recipe, "dpo", tmp_path / "spec.json", tmp_path)


def test_the_environment_does_not_choose_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the launch: transformers takes what it names wherever ``bf16`` is false."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert arguments.mixed_precision == "bf16"
    apply_precision(arguments, Precision(torch.device("cpu"), torch.float32, torch.float32))
    assert arguments.mixed_precision == "no"
