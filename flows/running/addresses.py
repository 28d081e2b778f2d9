"""Where the two user interfaces are, or will be once ``preflow ui`` runs."""

import os
import re
import ssl

from preflow.environment import mlflow_uri
from preflow.errors import ConfigError
from preflow.redaction import quoted, without_login, without_secrets

HOST = "127.0.0.1"
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
MLFLOW_PORT = 5000
PREFECT_PORT = 4200
#: A busy server takes its time; one that is not there refuses at once.
_ANSWER_SECONDS = 30.0


def proxy_names() -> list[str]:
    """The names of ``PREFLOW_ALLOWED_HOSTS`` (separated by commas), by which a proxy passes requests on.

    Raises:
        ConfigError: One of them is no plain name.
    """
    names = [name.strip() for name in os.environ.get("PREFLOW_ALLOWED_HOSTS", "").split(",") if name.strip()]
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigError(
                f"PREFLOW_ALLOWED_HOSTS holds '{quoted(name)}': expected names such as runs.example.org, separated by "
                "commas, without scheme, port or *"
            )
    return names


def allowed_hosts() -> list[str]:
    """Names by which browsers and programs may ask the servers that run here: those of this machine and of proxies."""
    return [HOST, "localhost", *proxy_names()]


def mlflow_server() -> str | None:
    """The MLflow server that is configured; none where runs go to a local database."""
    uri = mlflow_uri()
    return without_login(uri).rstrip("/") if uri.startswith(("http://", "https://")) else None


def mlflow_address() -> str:
    """Where a browser finds the MLflow UI.

    ``PREFLOW_MLFLOW_UI`` where set (in containers the server has another name than outside), else the configured
    server, else the local one that ``flows.ui`` starts.
    """
    named = os.environ.get("PREFLOW_MLFLOW_UI", "").rstrip("/")
    return named or mlflow_server() or f"http://{HOST}:{MLFLOW_PORT}"


def prefect_server() -> str | None:
    """The UI of the Prefect server that is configured; none where flows run embedded."""
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    return None if api is None else str(api).rstrip("/").removesuffix("/api")


def tls() -> ssl.SSLContext | bool:
    """How the certificate of Prefect's server is checked, by Prefect's own settings."""
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_TLS_INSECURE_SKIP_VERIFY

    if PREFECT_API_TLS_INSECURE_SKIP_VERIFY.value():
        return False
    return ssl.create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value())


def require_prefect() -> None:
    """Ask the Prefect server that is named once, before anything is done; its own client would try for minutes.

    Raises:
        ConfigError: It does not answer, or not to this login.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    shown = without_login(str(PREFECT_API_URL.value()))
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": _ANSWER_SECONDS}, sync_client=True) as client,
        ):
            client.request("GET", "/admin/version").raise_for_status()
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ConfigError(
                f"Prefect at {shown} refuses this login ({code}). Set PREFECT_API_AUTH_STRING to the server's own"
            ) from None
        raise ConfigError(f"Prefect at {shown} answers {code}. Give its address, which ends in /api") from None
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        reason = without_secrets(str(error) or type(error).__name__)
        raise ConfigError(
            f"Prefect at {shown} does not answer: {reason}. Start it (preflow serve), or unset PREFECT_API_URL"
        ) from None
