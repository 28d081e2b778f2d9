"""Where all state lies: one folder, ``PREFLOW_HOME`` (default ``.preflow`` in the working folder).

``activate()`` points Prefect and the Hugging Face caches there and switches telemetry off. It must run before
``prefect`` or ``mlflow`` are imported, so the packages ``flows``, ``tasks`` and ``expectations`` call it first. It
makes no folder, so that a command's help leaves nothing behind; ``make_home()``, which ``tasks`` calls, does.
Everything is a default: a variable that the user has set is left alone.
"""

import contextlib
import errno
import logging
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from preflow.errors import MachineError
from preflow.redaction import without_login

#: No telemetry by default from any dependency; and time for Prefect's embedded server to start on a busy machine.
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A run says that it lives, by which `preflow operate setup` finds those that do not.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # A web page that is opened on this machine must not be able to start a run: it has no token.
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A run does not wait for MLflow: its record waits on disk, and is sent again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # Four lines for each stage, which show the tracking address.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "TOKENIZERS_PARALLELISM": "false",
    # oneDNN keeps the code of a thousand products: for rows of many lengths a fifth of a gigabyte, not used again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "24",
    "GIT_PYTHON_REFRESH": "quiet",
}


def preflow_home() -> Path:
    """The folder of all state, absolute; ``PREFLOW_HOME`` or ``.preflow`` in the working folder."""
    return Path(os.environ.get("PREFLOW_HOME") or ".preflow").expanduser().resolve()


def models_folder() -> Path:
    """Where packaged base models are converted to, once."""
    return preflow_home() / "models"


def store_folder() -> Path:
    """Where stage artifacts and reference log-probs lie."""
    return preflow_home() / "store"


def digests_folder() -> Path:
    """Where digests of files are remembered."""
    return preflow_home() / "digests"


def logprobs_url() -> str:
    """Where the log-prob store lies: ``PREFLOW_LOGPROBS`` (a folder or any fsspec URL), else below the stage store."""
    return os.environ.get("PREFLOW_LOGPROBS") or str(store_folder() / "logprobs")


def login_file() -> Path:
    """Holds ``NAME:PASSWORD`` of the Prefect server: ``PREFLOW_PREFECT_LOGIN``, or what ``preflow serve`` made here."""
    return Path(os.environ.get("PREFLOW_PREFECT_LOGIN") or preflow_home() / "prefect" / "login")


def mlflow_uri() -> str:
    """``MLFLOW_TRACKING_URI`` if set, else an SQLite database under the home folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{preflow_home() / 'mlflow' / 'mlflow.db'}"


def remote_code_allowed() -> bool:
    """Whether who runs this process lets models bring code of their own: ``PREFLOW_ALLOW_REMOTE_CODE=1``.

    A recipe alone does not suffice: others may have written it, and the code has this process's rights and tokens.
    """
    return os.environ.get("PREFLOW_ALLOW_REMOTE_CODE", "") == "1"


def activate() -> Path:
    """Set the environment's defaults for a run and return the home folder, which is not made yet."""
    home = preflow_home()
    os.environ.setdefault("PREFLOW_HOME", str(home))
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    if "HF_HOME" not in os.environ:  # the login stays where the hub's own tools look for it
        os.environ.setdefault("HF_HUB_CACHE", str(home / "hub"))
        os.environ.setdefault("HF_DATASETS_CACHE", str(home / "datasets"))
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    _take_login_out_of_address()
    _know_prefects_login()
    quiet_quantization()
    return home


def _know_prefects_login() -> None:
    """Call a Prefect server by the login in its file, if it is one of this machine or the file is named."""
    is_local = urlsplit(os.environ.get("PREFECT_API_URL", "")).hostname in {"127.0.0.1", "localhost"}
    if not is_local and "PREFLOW_PREFECT_LOGIN" not in os.environ:
        return
    with contextlib.suppress(FileNotFoundError):
        login = login_file().read_text(encoding="utf-8").strip()
        os.environ.setdefault("PREFECT_API_AUTH_STRING", login)


def _take_login_out_of_address() -> None:
    """Give MLflow the login of its address in the variables that are meant for it: addresses end up in texts."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.username and parts.password:  # MLflow uses both or neither
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        os.environ["MLFLOW_TRACKING_URI"] = without_login(address)


def private_home() -> None:
    """Make the home folder, for its owner alone: it holds rows, personal data among them, and models.

    A group that shares one makes the folder itself (``chmod 2770``) and works with ``umask 002``.

    Raises:
        MachineError: It cannot be made, or is another user's.
    """
    home = preflow_home()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{home} cannot be made: {error.strerror}. Set PREFLOW_HOME to another folder") from error
    if home.stat().st_uid != os.geteuid() and not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise MachineError(
            f"{home} is another user's: set PREFLOW_HOME to a folder of your own, or let its owner share it with a "
            "group (chmod 2770, and umask 002)"
        )


def make_home() -> None:
    """Make Prefect's folder in the home folder; Prefect, which looks for it when imported, makes no parents.

    Raises:
        MachineError: One of them is another user's, or is read-only.
    """
    home, prefect = activate(), Path(os.environ["PREFECT_HOME"])
    private_home()
    prefect.mkdir(parents=True, exist_ok=True)
    for folder in (home, prefect):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise MachineError(
                f"{folder} cannot be written: {os.strerror(errno.EACCES)}. Make it writable for this user, or set "
                "PREFLOW_HOME"
            )


def quiet_quantization(*, asked: bool = False) -> None:
    """Hide what bitsandbytes logs about its 4-bit kernels, which PEFT imports whether or not anything is quantized.

    Args:
        asked: Whether the recipe quantizes: then nothing is hidden.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.NOTSET if asked else logging.ERROR)


def trusted_judges() -> frozenset[str]:
    """Functions that recipes may name as judges: ``PREFLOW_TRUSTED_JUDGES=module:name,module:name``.

    A function of a recipe runs with the rights of this process, so who runs it names them, not the recipe.
    """
    return frozenset(filter(None, map(str.strip, os.environ.get("PREFLOW_TRUSTED_JUDGES", "").split(","))))
