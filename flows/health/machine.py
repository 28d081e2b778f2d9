"""This machine: the state folder, disk, file handles, GPU, tokens."""

import resource
import shutil
import tempfile
from pathlib import Path

from flows.health.check import Check, failed, ok, warning
from preflow.environment import preflow_home
from preflow.redaction import without_secrets

#: Open files that are enough, below which a line warns, and below which validation and servers have been seen to fail.
_ENOUGH_HANDLES, _FEW_HANDLES, _TOO_FEW_HANDLES = 4096, 1024, 256
#: Bytes free below which a line warns, and below which even small models do not fit.
_LITTLE_SPACE, _NO_SPACE = 5 * 10**9, 10**9
#: Of one training: its weights, two checkpoints with the optimizer's two moments, and one that is being written.
_COPIES = 1 + 3 * 3
_BYTES = 4
_GB = 1e9
#: There where NVIDIA's driver is loaded.
_DRIVER = Path("/dev/nvidiactl")


def check_home() -> Check:
    """Whether the state folder can be written."""
    home = preflow_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return failed("state folder", f"{home}: {reason}", "make it writable for this user, or set PREFLOW_HOME")
    return ok("state folder", str(home))


def check_disk(needed: float | None = None) -> Check:
    """Whether the disk of the state folder has enough free space.

    Args:
        needed: Bytes that a recipe's run writes at most; where not given, the least that small models take.
    """
    place = next(path for path in (preflow_home(), *preflow_home().parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / _GB:,.1f} GB free"
    remedy = f"free space on the disk of {place}, or set PREFLOW_HOME to another"
    if needed is not None:
        found += f", the recipe writes up to {needed / _GB:,.1f}"
    if free < max(_NO_SPACE, needed or 0):
        return failed("disk", found, remedy)
    if needed is None and free < _LITTLE_SPACE:
        return warning("disk", found, remedy)
    return ok("disk", found)


def disk_needed(trained: int, base_bytes: int) -> float:
    """Bytes that a run writes at most: what its trainings keep, and the base model where it is fetched.

    Args:
        trained: Parameters that its trainings change, all together.
        base_bytes: Size of the base model's files.
    """
    return float(trained * _BYTES * _COPIES + base_bytes)


def check_file_handles() -> Check:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files allowed"
    if 0 < hard < _FEW_HANDLES:
        remedy = "raise the hard limit (nofile in limits.conf, LimitNOFILE= of a systemd unit, --ulimit of a container)"
    else:
        remedy = f"ulimit -n {min(hard, _ENOUGH_HANDLES) if hard > 0 else _ENOUGH_HANDLES}"
    if soft < _TOO_FEW_HANDLES:
        return failed("file handles", found, remedy)
    if soft < _FEW_HANDLES:
        return warning("file handles", found, remedy)
    return ok("file handles", found)


def check_gpu() -> Check:
    """Which GPU PyTorch sees."""
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return ok("GPU", f"{torch.cuda.device_count()} x {card.name}, {card.total_memory / _GB:.0f} GB")
    if _DRIVER.exists() or shutil.which("nvidia-smi"):
        built = f"torch {torch.__version__} is built for {torch.version.cuda or 'the CPU alone'}"
        remedy = "install a CUDA build of torch that the driver supports (nvidia-smi names the version)"
        return failed("GPU", f"a driver is there, but PyTorch finds no card; {built}", remedy)
    return ok("GPU", "none; runs use the CPU")


def check_hub_token() -> Check:
    """Whether the hub takes the token that is set; asked only where the hub may be asked."""
    name = "hub token"
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    token = get_token()
    if token is None:
        return ok(name, "none; public models and data sets need none")
    if constants.HF_HUB_OFFLINE:
        return ok(name, "set; not tried, since HF_HUB_OFFLINE is set")
    try:
        who = HfApi().whoami(token)
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            return failed(name, f"the hub refuses it ({code})", "set HF_TOKEN to a token that is valid, or unset it")
        return warning(name, f"the hub answers {code}", "try again later; what is in the cache is used meanwhile")
    except (OSError, OfflineModeIsEnabled) as error:
        reason = without_secrets(str(error))[:120]
        return warning(name, f"the hub does not answer: {reason}", "set HF_HUB_OFFLINE=1 where there is no network")
    return ok(name, f"taken, as {who.get('name', 'an unnamed account')}")
