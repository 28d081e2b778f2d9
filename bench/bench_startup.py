"""How long commands take to start: help, ``validate`` of a small file, and a run in which nothing changed.

``python -m bench.bench_startup [--quick]`` runs each command several times in a process of its own, in turns, and
prints minimum and median of wall-clock and CPU seconds of each, and one JSON line last. CPU seconds are those of the
process and of what it waited for; on a machine shared with others, they and the minima say more than wall-clock time.
``validate`` is compared with importing Great Expectations. The rerun is that of a tiny recipe, whose first run makes
everything and is not timed; ``--recipe NAME`` reruns another one, whose first run may take long.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

PREFLOW = (sys.executable, "-m", "flows.commands.app")
SUBCOMMANDS = (
    "init", "run", "validate", "plan", "export", "deploy", "submit", "worker", "doctor", "sync", "store", "ui", "serve",
    "operate", "decide", "tune", "augment", "iterate", "compare", "review", "promote", "rollback", "models", "verify",
    "reward-model", "rlhf", "compare-strategies", "schema", "explain",
)  # fmt: skip
VALIDATE, IMPORT, RERUN = "validate 20 rows", "import great_expectations", "rerun, nothing changed"
_ROOT = Path(__file__).parents[1]
_ROWS = 20


@dataclass
class Times:
    """What the runs of one command took, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Two runs of each command, and no rerun of a recipe.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each command.")] = 5,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe to run again, in place of a tiny one; PREFLOW_HOME holds its runs.")
    ] = None,
) -> None:
    """Measure how long commands take to start."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        commands = help_commands() | validation_commands(folder)
        if not quick:
            run = [*PREFLOW, "run", recipe or str(tiny_recipe(folder))]
            run_once(run, folder)
            commands[RERUN] = run
        report(measure(commands, 2 if quick else repeats, folder))


def help_commands() -> dict[str, list[str]]:
    """``--help`` of ``preflow`` and of each subcommand, by name."""
    given = {"help": [*PREFLOW, "--help"]}
    return given | {f"help of {name}": [*PREFLOW, name, "--help"] for name in SUBCOMMANDS}


def validation_commands(folder: Path) -> dict[str, list[str]]:
    """``validate`` of a file of 20 pairs, and what it is compared with."""
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair(number)) + "\n" for number in range(_ROWS)), encoding="utf-8")
    return {
        IMPORT: [sys.executable, "-c", "import great_expectations"],
        VALIDATE: [*PREFLOW, "validate", str(pairs)],
    }


def measure(commands: Mapping[str, Sequence[str]], repeats: int, folder: Path) -> dict[str, Times]:
    """Run every command so many times, all of them in turns, after one round that fills the machine's caches."""
    found = {name: Times() for name in commands}
    for turn in range(repeats + 1):
        for name, command in commands.items():
            wall, cpu = run_once(command, folder)
            if turn:
                found[name].wall.append(wall)
                found[name].cpu.append(cpu)
    return found


def run_once(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a command.

    Raises:
        subprocess.CalledProcessError: The command failed; its output is in the error.
    """
    paths = [str(_ROOT / "src"), str(_ROOT), os.environ.get("PYTHONPATH", "")]
    given = {"PREFLOW_HOME": str(folder / "home"), **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with (folder / "output").open("w+b") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=given)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, output.read().decode(errors="replace"))
    return wall, used.ru_utime + used.ru_stime


def report(found: Mapping[str, Times]) -> None:
    """Print a line for each command, and the figures that count as JSON."""
    for name, times in found.items():
        wall, cpu = ((min(each), statistics.median(each)) for each in (times.wall, times.cpu))
        print(f"{name:<26} wall {wall[0]:6.2f} s, median {wall[1]:6.2f}; CPU {cpu[0]:6.2f} s, median {cpu[1]:6.2f}")
    helps = [name for name in found if name.startswith("help")]
    summary: dict[str, float] = {}
    for kind in ("wall", "cpu"):
        least = {name: min(getattr(times, kind)) for name, times in found.items()}
        summary[f"slowest_help_{kind}_seconds"] = max(least[name] for name in helps)
        summary[f"validate_{kind}_seconds"] = least[VALIDATE]
        summary[f"validate_above_import_{kind}_seconds"] = least[VALIDATE] - least[IMPORT]
        summary[f"validate_over_import_{kind}"] = least[VALIDATE] / least[IMPORT]
        if RERUN in found:
            summary[f"rerun_{kind}_seconds"] = least[RERUN]
    print(json.dumps({key: round(value, 3) for key, value in summary.items()}))


def pair(number: int) -> dict[str, str]:
    """A preference pair like no other."""
    return {
        "prompt": f"Can I return item {number} today?",
        "chosen": f"Of course, please bring item {number} back and we refund it.",
        "rejected": f"No idea about item {number}, ask in the shop some other time.",
    }


def tiny_recipe(folder: Path) -> Path:
    """A recipe of both stages on a model of two layers, all made here.

    Returns:
        The recipe's file.
    """
    _tiny_model(folder / "model")
    rows = [{"prompt": f"Where is order {number}?", "completion": f"Order {number} is here."} for number in range(24)]
    for name, data in (("demonstrations", rows), ("preferences", [pair(number) for number in range(40)])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    common = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    recipe: dict[str, Any] = {
        "name": "tiny",
        "model_name": str(folder / "model"),
        "eval_split": 0.2,
        "max_seq_length": 256,
        "lora_r": 4,
        "sft": {"dataset": "demonstrations.jsonl", "learning_rate": 1e-2, **common},
        "dpo": {"dataset": "preferences.jsonl", "learning_rate": 1e-3, **common},
        "evaluation": {"kl_prompts": 2, "max_new_tokens": 6, "bootstrap_samples": 100},
    }
    file = folder / "tiny.yaml"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return file


def _tiny_model(folder: Path) -> None:
    """A Llama of random weights with a byte-level tokenizer and ChatML turns."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    start, end = "<|im_start|>", "<|im_end|>"
    letters = [start, end, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([start, end])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end
    )
    fast.chat_template = (
        f"{{% for message in messages %}}{start}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{end}\n"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    fast.save_pretrained(str(folder))


if __name__ == "__main__":
    typer.run(main)
