"""What a log-prob depends on besides the token ids: the weights in use, the precision, and the code."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from preflow.config import Recipe
from preflow.environment import digests_folder
from preflow.errors import ModelError
from preflow.fingerprints.code import code_digest
from preflow.fingerprints.files import DigestCache, file_stamp, json_digest
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import is_adapter, load_policy
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef, weights_files
from preflow.models.scoring import scores

#: Files besides the weights that decide what these compute. The tokenizer's are not among them: token ids are in every
#: row's own key.
_SETTINGS = ("*.safetensors.index.json", "config.json", "adapter_config.json", "*.py")
#: Entries of configurations that say where something came from, not what it computes.
_ORIGIN = ("_name_or_path", "base_model_name_or_path", "inference_mode", "transformers_version")
#: What a stored value is; sums over any of the tokens (LD-DPO's too) are taken when it is read.
SCORE = "log-prob in nats of every response token, its end-of-turn token included"


@dataclass(frozen=True)
class ReferenceIdentity:
    """One model in one precision, as the store identifies it.

    Attributes:
        values: All that a value depends on besides the row.
        label: The model's name, for display.
        files: The files behind the weights with their stamps, as they were when their digests were taken.
    """

    values: dict[str, Any]
    label: str
    files: dict[str, list[int]]

    def digest(self) -> str:
        """SHA-256 of what values depend on."""
        return json_digest(self.values)

    def require_unchanged(self) -> None:
        """Raise if a file of the model was changed since its digest was taken: values could belong to either version.

        Raises:
            ModelError: Names the file.
        """
        for name, stamp in self.files.items():
            path = Path(name)
            if not path.is_file() or file_stamp(path) != stamp:
                raise ModelError(
                    f"{name} was changed while log-probs were computed with it: what was computed since the last shard "
                    "is discarded. Run again when nothing writes to the model's folder"
                )


def identify(base: ModelRef, trained: Path | None, recipe: Recipe, numbers: Precision) -> ReferenceIdentity:
    """The identity of the model that ``load_policy`` gives for the same arguments.

    Args:
        base: The base model.
        trained: Folder of an adapter or of full weights over it; none for the base itself (with its own adapter).
        recipe: Quantization and provider.
        numbers: Where and in which dtypes the forward runs.
    """
    adapter = trained or (Path(base.adapter) if base.adapter else None)
    folders = {"base": Path(base.path)}
    if adapter is not None:
        folders |= {"adapter": adapter} if is_adapter(adapter) else {"base": adapter}
    files: dict[str, list[int]] = {}
    weights = {part: _weights_digest(folder, files, recipe) for part, folder in folders.items()}
    loading_options = {name: getattr(recipe, name) for name in ("use_4bit", "provider", "trust_remote_code")}
    if recipe.provider == "unsloth":  # its loading depends on the length
        _, section = recipe.training_sections[-1]
        loading_options |= {"unsloth": _version("unsloth"), "length": section.max_seq_length}
    values = {"weights": weights, "score": SCORE, **loading_options, **computation_identity(numbers.label())}
    label = base.name if trained is None else f"{base.name} + {trained.parent.name[:12]}"
    return ReferenceIdentity(values, label, files)


def _weights_digest(folder: Path, stamps: dict[str, list[int]], recipe: Recipe) -> str:
    """Digest of the files of a model folder that decide what it computes; notes each file's stamp.

    Raises:
        ModelError: The model's code is in another repository.
        UnsafeWeightsError: An adapter has no safetensors weights, or an index names a file outside the folder.
    """
    digest_cache = DigestCache(digests_folder())
    digests: dict[str, Any] = {}
    files = {p for pattern in _SETTINGS for p in folder.glob(pattern) if p.is_file()}
    for path in sorted(files | weights_files(folder)):
        stamps[str(path.absolute())] = file_stamp(path)
        if path.name in ("config.json", "adapter_config.json"):
            entries = json.loads(path.read_text(encoding="utf-8"))
            if recipe.trust_remote_code:
                _require_own_code(entries, path)
            kept = {name: value for name, value in entries.items() if name not in _ORIGIN}
            digests[path.name] = json.dumps(kept, sort_keys=True)  # some hold infinities, which a digest refuses
        else:
            digests[path.relative_to(folder).as_posix()] = digest_cache.digest(path)
    return json_digest(digests)


def _require_own_code(config: dict[str, Any], file: Path) -> None:
    places = [str(place) for place in (config.get("auto_map") or {}).values() if "--" in str(place)]
    if places:
        raise ModelError(
            f"{file} takes the model's code from another repository ({places[0]}), where it can change "
            "unnoticed. Put its .py files beside the weights, and leave only what follows '--' in auto_map"
        )


def _version(package: str) -> str:
    return version(package) if find_spec(package) else ""


def computing() -> tuple[str, ...]:
    """What computes a value and what it is given.

    Loading the model, putting an adapter's layers together, scoring, and summing up what is stored.
    """
    parts = (load_policy, fuse_lora, scores, Precision, ModelRef)
    return *(f"{each.__module__}:{each.__name__}" for each in parts), "preflow.logprobs.fill:shard_columns"


def computation_identity(precision_label: str) -> dict[str, Any]:
    """What else a value depends on, to the bit: device, dtypes, the code that computes it and its libraries."""
    import peft
    import transformers

    cuda: Any = torch.backends.cuda
    mkldnn: Any = torch.backends.mkldnn
    return {
        "code": code_digest(*computing()),
        "bitsandbytes": _version("bitsandbytes"),
        "precision": precision_label,
        "matmul": [
            # "none" is the default, which is full precision
            *(backend.matmul.fp32_precision.replace("none", "ieee") for backend in (cuda, mkldnn)),
            cuda.matmul.allow_bf16_reduced_precision_reduction,
            cuda.matmul.allow_fp16_reduced_precision_reduction,
        ],
        # transformers uses scaled-dot-product attention, unless the model's code (in the weights' digest) does not.
        "attention": [
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
