"""Tags of a tracked run: its inputs and code, and the process it belongs to."""

import functools
import os
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import preflow
from preflow.config import Recipe
from preflow.fingerprints.files import json_digest
from preflow.specs import ValidateSpec

#: Settings of the whole recipe that every run has as a parameter.
_SHARED = ("strategy", "model_name", "tuning", "use_4bit", "bf16", "template", "seed", "provider")
#: Seconds by which two readings of one process's start may differ: the system derives it from a clock that is set.
_SAME_START = 5.0
#: Heartbeats after which a run of which nothing is known counts as gone.
MISSED = 3
_UNKNOWN = "unknown"
#: Settings of the one adapter, and of DPO, that keep their own name.
_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout")
_DPO = ("beta", "loss_type", "label_smoothing", "f_divergence_type")
#: Settings that both training stages have, so that their names have the stage as a prefix.
_TRAINING = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "warmup_ratio",
    "lr_scheduler_type",
    "max_seq_length",
    "eval_split",
    "validation_split",
)


def parameters(recipe: Recipe) -> dict[str, str]:
    """The key parameters of a run, flat, under the same names in every run: ``beta``, ``dpo_learning_rate``, ..."""
    found: dict[str, Any] = {name: getattr(recipe, name) for name in _SHARED}
    if recipe.tuning == "lora":
        _, trained = recipe.training_sections[0]
        found |= {name: getattr(trained, name) for name in _ADAPTER}
    if recipe.dpo is not None:
        found |= {name: getattr(recipe.dpo, name) for name in _DPO}
    for stage, section in recipe.training_sections:
        found |= {f"{stage}_{name}": getattr(section, name) for name in _TRAINING}
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def data_digest(sources: ValidateSpec) -> str:
    """One digest over all input data files."""
    return json_digest(sources.inputs())


def lineage(recipe: Recipe, sources: ValidateSpec, flow_run_id: str | None) -> dict[str, str]:
    """The tags of a pipeline run. Digests of single data files are in its dataset inputs."""
    tags = {
        "kind": "pipeline",
        "strategy": recipe.strategy,
        "model_name": str(recipe.model_name),
        "recipe_digest": recipe.settings_digest(),
        "data_digest": data_digest(sources),
        "preflow_version": preflow.__version__,
        **process_tags(),
        **heartbeat_tags(),
    }
    if flow_run_id is not None:
        tags["prefect_flow_run_id"] = flow_run_id
    commit = git_commit(Path(__file__).parents[2])
    if commit is not None:
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit.removesuffix("+changes")}
    return tags


def git_commit(folder: Path) -> str | None:
    """The checkout's commit, with ``+changes`` where files differ; ``PREFLOW_COMMIT`` in an image; else none."""
    if os.environ.get("PREFLOW_COMMIT"):  # in an image, which has no checkout
        return os.environ["PREFLOW_COMMIT"]
    found = _git(folder, "rev-parse", "--show-prefix", "HEAD")
    if found is None:
        return None
    prefix, _, head = found.rpartition("\n")
    if prefix:  # installed below the checkout of another project
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):  # no git here, or a stuck file system
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def process_tags(process: psutil.Process | None = None) -> dict[str, str]:
    """Tags that name a process of this machine, or this one; an id alone would be reused.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    named = process or psutil.Process()
    return {**_machine(), "pid": str(named.pid), "process_started": _started(named)}


@functools.cache
def _machine() -> dict[str, str]:
    """Where process ids mean the same: containers with one host name differ, and so does a machine started anew."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text(encoding="ascii").strip() if boot.is_file() else _UNKNOWN,
        "pid_namespace": str(namespace.stat().st_ino) if namespace.exists() else _UNKNOWN,
    }


def heartbeat_seconds() -> float:
    """Seconds between two heartbeats of a run."""
    return float(os.environ.get("PREFLOW_HEARTBEAT_SECONDS", "30"))


def heartbeat_tags() -> dict[str, str]:
    """The tag of a pipeline run that is set again and again while its process is alive."""
    return {"heartbeat": datetime.now(UTC).isoformat(timespec="milliseconds")}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process that a run belongs to has ended.

    Where process ids mean what they mean here, the process is looked for; elsewhere it counts as gone after
    ``MISSED`` heartbeats. One that has no heartbeat cannot be checked, so it counts as alive.
    """
    if any(tags.get(name, here) != here for name, here in _machine().items()) or "host" not in tags:
        return _is_silent(tags.get("heartbeat"))
    try:
        process = psutil.Process(int(tags["pid"]))
        return (
            process.status() == psutil.STATUS_ZOMBIE or _apart(_started(process), tags["process_started"]) > _SAME_START
        )
    except psutil.NoSuchProcess:
        return True


def _is_silent(heartbeat: str | None) -> bool:
    if heartbeat is None:
        return False
    silent = (datetime.now(UTC) - datetime.fromisoformat(heartbeat)).total_seconds()
    return silent > MISSED * heartbeat_seconds()


def _apart(first: str, second: str) -> float:
    return abs((datetime.fromisoformat(first) - datetime.fromisoformat(second)).total_seconds())


def _started(process: psutil.Process) -> str:
    return datetime.fromtimestamp(process.create_time(), UTC).isoformat(timespec="milliseconds")
