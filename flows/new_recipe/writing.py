"""A recipe for a user's own files, with a comment beside every setting that matters."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.new_recipe.file_facts import FileFacts
from flows.running.preparation import PACKAGED_RECIPES
from preflow.config.checks.advice import parameters_named
from preflow.config.files import read_settings
from preflow.config.loading import load_recipe, plain_name
from preflow.data.validated import DataKind
from preflow.errors import ConfigError

#: Least memory of a GPU in GB and the packaged recipe whose settings fit it, the largest first.
_PROFILES = ((16.0, "llama-8b-qlora-16gb-up"), (12.0, "llama-8b-qlora-12-16gb"))
#: Settings where there is no such GPU: a small model with an adapter.
_SMALL: dict[str, Any] = {
    "model_name": "SmolLM2-135M-Instruct",
    "max_seq_length": 1024,
    "lora_r": 16,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "sft": {"learning_rate": 2e-4, "num_train_epochs": 1},
    "dpo": {"learning_rate": "auto", "beta": 0.1, "num_train_epochs": 1},
}
#: Share of a GPU's memory that a model's weights may take in bfloat16, so that it needs no quantization.
_UNQUANTIZED = 0.4
#: Shares of rows to hold out: the first by which some are held out and some are left.
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_SHARE = "share of prompts held out for evaluation; or name files: eval_dataset"
#: The same where all rows would be held out together, or none.
_ONE_PROMPT = "all rows begin with the same turn, so none can be held out: name other rows as eval_dataset"
_COMMENTS = {
    "use_4bit": "the base weights in 4 bits, so that they fit; needs the extra preflow[quantization]",
    "bf16": "compute in bfloat16; the GPU must support it",
    "lora_r": "rank of the adapter; more learns more and needs more memory",
    "per_device_train_batch_size": "rows per forward; lower it on out-of-memory",
    "gradient_accumulation_steps": "forwards per step: the effective batch is the product",
    "gradient_checkpointing": "less memory, slower, same results",
    "optim": "the optimizer, by transformers' name",
    "auto_find_batch_size": "on out-of-memory: half the batch, twice the accumulation",
}
_STAGE_COMMENTS = {
    ("sft", "learning_rate"): "peak rate; about 2e-4 for an adapter",
    ("dpo", "learning_rate"): "peak rate; about 5e-6 for an adapter",
    ("dpo", "auto"): "a short test finds the peak rate; or a number: about 5e-5 for 135M parameters, 5e-6 for 8B",
    ("dpo", "beta"): "higher keeps the policy closer to the reference",
}
_STRATEGIES = {
    ("sft", "dpo"): ("two-stage", "SFT on the demonstrations, then DPO on the pairs against it"),
    ("sft",): ("sft", "the files hold demonstrations alone"),
    ("dpo",): ("dpo", "the files hold pairs alone: the model itself is the reference"),
}
_STAGES: dict[DataKind, str] = {"demonstrations": "sft", "preferences": "dpo"}
Line = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings for a machine, and why they were chosen."""

    settings: dict[str, Any]
    why: str


def choose_profile(model: str | None, memory: float | None) -> Profile:
    """The settings of the packaged recipe for a GPU's memory, or those for a small model.

    Args:
        model: The model that the user names.
        memory: Of the GPU, in GB; none where there is no GPU.
    """
    name = next((name for least, name in _PROFILES if memory is not None and memory >= least), None)
    if name is None or memory is None:
        where = "no GPU" if memory is None else f"a GPU of {memory:g} GB"
        found = Profile(dict(_SMALL), f"settings for a small model ({where})")
    else:
        settings = {
            key: value
            for key, value in read_settings(PACKAGED_RECIPES / f"{name}.yaml").items()
            if key not in {"name", "strategy"}
        }
        size = None if model is None else weight_bytes(model)
        if size is not None and size <= memory * 1e9 * _UNQUANTIZED:  # it fits as it is
            settings = {key: value for key, value in settings.items() if key not in {"use_4bit", "bf16", "optim"}}
        found = Profile(settings, f"settings of recipes/{name}.yaml, for a GPU of {memory:g} GB")
    return found if model is None else Profile({**found.settings, "model_name": model}, found.why)


def weight_bytes(model: str) -> float | None:
    """Bytes of a model's weights in bfloat16, by files or name (``Llama-3.1-8B``); none where neither tells."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return float(sum(path.stat().st_size for path in folder.glob("*.safetensors"))) or None
    parameters = parameters_named(model)
    return None if parameters is None else parameters * 2


def recipe_text(files: Sequence[FileFacts], profile: Profile, output: Path) -> str:
    """The recipe.

    Args:
        files: What the recipe trains on.
        profile: Settings for the machine.
        output: Where it will be written; paths in it start there.

    Raises:
        ConfigError: The files' rows would have to be read in two ways at once.
    """
    stages = tuple(stage for kind, stage in _STAGES.items() if any(facts.kind == kind for facts in files))
    strategy, why = _STRATEGIES[stages]
    model = _scalar(_path(profile.settings["model_name"], output))
    lines: list[Line] = [
        (0, f"# Written by preflow init: {profile.why}.", ""),
        (0, f"# Next: preflow validate {output.name}, preflow plan {output.name}, preflow run {output.name}", ""),
        (0, f"name: {_scalar(plain_name(output.stem))}", "the experiment in MLflow"),
        (0, f"strategy: {strategy}", why),
        (0, f"model_name: {model}", "a folder, a packaged model or a hub model"),
        (0, f"max_seq_length: {_length(files, profile)}", f"tokens; {_longest(files)}"),
        *(
            (0, f"{name}: {_scalar(value)}", _COMMENTS[name])
            for name, value in profile.settings.items()
            if name in _COMMENTS
        ),
        *_reading(files),
    ]
    for kind, stage in _STAGES.items():
        if stage in stages:
            lines += _section(stage, [facts for facts in files if facts.kind == kind], profile, output)
    return _lines_text(lines)


def _section(stage: str, files: list[FileFacts], profile: Profile, output: Path) -> Iterator[Line]:
    yield 0, "", ""
    yield 0, f"{stage}:", ""
    held = [facts for facts in files if facts.held_out]
    train = [facts for facts in files if not facts.held_out] or held
    yield from _data("dataset", train, output)
    if held and train is not held:
        yield from _data("eval_dataset", held, output)
    else:
        keys = [key for facts in train for key in facts.keys]
        yield 1, f"eval_split: {_share(keys)}", _ONE_PROMPT if len(set(keys)) == 1 else _SHARE
    for name, value in profile.settings[stage].items():
        if name not in {"dataset", "eval_dataset", "eval_split"}:
            comment = _STAGE_COMMENTS.get((stage, "auto" if value == "auto" else name), "passes over the rows")
            yield 1, f"{name}: {_scalar(value)}", comment


def _data(name: str, files: list[FileFacts], output: Path) -> Iterator[Line]:
    """The files under a setting: a path where that is all there is to say, else a mapping."""
    if len(files) == 1 and files[0].reading == type(files[0].reading)():
        yield 1, f"{name}: {_scalar(_path(files[0].entry, output))}", files[0].how
        return
    yield 1, f"{name}:", ""
    for facts in files:
        yield 2, f"- path: {_scalar(_path(facts.entry, output))}", facts.how
        if facts.reading.format != "auto":
            yield 3, f"format: {facts.reading.format}", "the rows' columns alone do not say it"
        if facts.reading.columns:
            yield 3, "columns:", "our names and the file's, found by the words in them: check them"
            for ours, theirs in facts.reading.columns.items():
                yield 4, f"{ours}: {_scalar(theirs)}", ""


def _reading(files: Sequence[FileFacts]) -> Iterator[Line]:
    """Settings of rows that can be read in more than one way."""
    several = any(facts.changed & {"later_turns_left_out"} for facts in files)
    desirable = [facts for facts in files if facts.settings.desirable_rows == "demonstrations"]
    if several or desirable:
        yield 0, "reading:", ""
    if several:
        yield 1, "multi_turn_answers: first_difference", "of pairs that differ in several turns; or all"
    if desirable:
        yield 1, "desirable_rows: demonstrations", "rows with a verdict on one answer: the favourable ones train"


def _path(entry: str, output: Path) -> str:
    """A path as the recipe names it: relative to its folder where it lies below, absolute elsewhere."""
    path = Path(entry).expanduser()
    if not path.exists():
        return entry  # on the hub, or packaged
    path, folder = path.resolve(), output.resolve().parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _share(keys: Sequence[int]) -> float:
    """The least share by which a prompt is held out and another one is left."""
    shares = [key / 2.0**64 for key in keys]
    return next((share for share in _SHARES if min(shares) < share <= max(shares)), _SHARES[0])


def _length(files: Sequence[FileFacts], profile: Profile) -> int:
    """A power of two that nearly all rows fit in, at most the profile's."""
    wanted = 128
    while wanted < _tokens(files) and wanted < profile.settings["max_seq_length"]:
        wanted *= 2
    return min(wanted, int(profile.settings["max_seq_length"]))


def _tokens(files: Sequence[FileFacts]) -> int:
    """About the tokens of a long row: a token is three characters or more in most languages; a template adds some."""
    lengths = sorted(length for facts in files for length in facts.characters)
    return lengths[int(len(lengths) * 0.98)] // 3 + 48


def _longest(files: Sequence[FileFacts]) -> str:
    return f"nearly all of the rows that were looked at have at most about {_tokens(files)}; longer ones are counted"


def _scalar(value: Any) -> str:
    """A value in YAML, in one line."""
    quote = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=quote, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").removesuffix("\n")


def _lines_text(lines: Sequence[Line]) -> str:
    texts = [("  " * depth + text, " ".join(comment.split())) for depth, text, comment in lines]
    return "".join(f"{text} # {comment}\n" if comment else f"{text}\n" for text, comment in texts)


def write_recipe(text: str, output: Path, *, force: bool) -> None:
    """Write a recipe that can be read; nothing is left where it cannot.

    Raises:
        ConfigError: There is a file already, or none can be written there.
    """
    if output.exists() and not force:
        raise ConfigError(f"{output} exists already: give another --output, or --force to overwrite it")
    partial = output.with_name(f"{output.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        load_recipe(partial)
        partial.replace(output)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
