"""The libraries whose versions can change what a stage computes: one table, and what a recipe adds to it."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from preflow.config.checks.requirements import distribution, optional_packages
from preflow.specs import JudgeAnswersSpec, JudgeSpec, LengthsSpec, PairSpec, StageSpec, ValidateSpec

_TOKENS = ("transformers", "tokenizers", "jinja2")
_FORWARD = ("torch", "accelerate", "peft")
#: By stage, what it always uses.
LIBRARIES = {
    "validate": (
        *("great-expectations", "ftfy", "rapidfuzz", "xxhash", "datasets", "pyarrow", "orjson"),
        *("numpy", "pandas", "scipy", "jinja2", "markupsafe"),
    ),
    "lengths": (*_TOKENS, "numpy", "torch"),
    "sft": (*_TOKENS, *_FORWARD, "trl"),
    "reference": (*_TOKENS, *_FORWARD),
    "tune": ("transformers", "tokenizers", *_FORWARD, "trl"),
    "dpo": ("transformers", "tokenizers", *_FORWARD, "trl"),
    "evaluate": (*_TOKENS, *_FORWARD, "numpy", "scipy"),
    "benchmarks": (*_TOKENS, *_FORWARD, "numpy", "scipy", "lm-eval"),
    "judge": ("torch", "numpy", "scipy"),
    "sample": (*_TOKENS, *_FORWARD, "numpy", "orjson"),
    "judge_answers": ("transformers", "tokenizers", "torch", "numpy", "scipy"),
    "pair": (),
    "reward_model": (*_TOKENS, *_FORWARD, "trl", "numpy"),
    "rloo": (*_TOKENS, *_FORWARD, "trl", "numpy"),
}
_PERSONAL_DATA = ("detect-secrets", "phonenumbers")
_LAUNCHED = ("deepspeed",)
#: What counts only where something asks for it: the recipe, the settings, the model's own files.
CHOSEN = frozenset({*_TOKENS, *_PERSONAL_DATA, *_LAUNCHED, "unsloth", "bitsandbytes"})
#: What stages import without taking a number from it; where ``LIBRARIES`` names one, it counts there all the same.
DECIDES_NOTHING = {
    "datasets": "holds the rows of a training; its own random fingerprint caches nothing",
    "filelock": "lets processes take turns",
    "fsspec": "carries the bytes of the store, each of which is digested",
    "httpx2": "names the errors of the network",
    "joblib": "spreads work over processes",
    "matplotlib": "draws an evaluation's pictures, from which nothing is read",
    "numpy": "holds lengths and row numbers beside a training",
    "pydantic": "checks settings and specifications, which count by their values",
    "psutil": "names the file system of a remembered digest",
    "pyarrow": "holds the tables of the store, which gives back what was put in",
    "requests": "carries prompts and replies of a judge, whose verdicts are kept",
    "safetensors": "holds weights, whose bytes it does not change",
    "tqdm": "draws bars, which are silenced",
    "urllib3": "sends a request to a judge again",
}
#: Quantized weights name what computes with them; one that is not listed stands for all of these.
_QUANTIZERS = {"bitsandbytes": "bitsandbytes", "gptq": "gptqmodel", "awq": "gptqmodel", "torchao": "torchao"}


def library_versions(stage: str, spec: StageSpec, *, launches: bool) -> dict[str, str | None]:
    """The installed version of each library that counts, none for one that is absent; and of Python.

    Args:
        stage: A key of ``LIBRARIES``.
        spec: What the stage is asked to do.
        launches: Whether it computes in ranks of a launch.
    """
    names = sorted({*LIBRARIES[stage], *_chosen(stage, spec), *(_LAUNCHED if launches else ())})
    python = ".".join(map(str, sys.version_info[:2]))  # it adds floats up in another way from 3.12 on
    return {"python": python, **{name: _version(name) for name in names}}


def _chosen(stage: str, spec: StageSpec) -> Iterator[str]:
    """What the recipe, the settings or the model's own files ask for."""
    if isinstance(spec, ValidateSpec):
        yield from _PERSONAL_DATA if spec.settings.personal_data else ()
        yield from _TOKENS if spec.tokenizer is not None else ()
        return
    if isinstance(spec, JudgeSpec):
        judge = spec.recipe.evaluation.judge
        yield from _TOKENS if judge is not None and judge.kind == "classifier" else ()
        return
    if isinstance(spec, LengthsSpec | JudgeAnswersSpec | PairSpec):
        return
    for package, setting, _ in optional_packages(spec.recipe):
        if ".optim" not in setting or setting.startswith(f"{stage}."):
            yield distribution(package)
    yield from _quantizers(Path(spec.base.path) / "config.json")


def _quantizers(config: Path) -> Iterator[str]:
    if config.is_file():
        kind = (json.loads(config.read_text(encoding="utf-8")).get("quantization_config") or {}).get("quant_method")
        if kind is not None:
            yield from [_QUANTIZERS[kind]] if kind in _QUANTIZERS else sorted(set(_QUANTIZERS.values()))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
