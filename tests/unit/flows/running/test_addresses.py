"""Where people are sent, and whether the Prefect server that is named is there."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    temporary_settings,
)

from flows.running.addresses import mlflow_address, mlflow_server, require_prefect, tls
from preflow.errors import ConfigError
from tests.fixtures.tls import self_signed


def test_a_link_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:s3cret@mlflow:5000/")
    assert mlflow_server() == mlflow_address() == "http://mlflow:5000"


def test_a_browser_may_know_the_server_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("PREFLOW_MLFLOW_UI", "http://127.0.0.1:5050/")
    assert mlflow_address() == "http://127.0.0.1:5050"


def test_a_local_database_is_shown_by_the_local_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere/mlflow.db")
    assert mlflow_server() is None
    assert mlflow_address() == "http://127.0.0.1:5000"


@contextmanager
def answering(code: int) -> Iterator[str]:
    """A server that answers every request with a code; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


def test_a_prefect_server_that_is_away_is_one_sentence_without_its_login() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://ada:s3cret@127.0.0.1:9/api"}),
        pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9/api does not answer: .*refused") as raised,
    ):
        require_prefect()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(("code", "remedy"), [(401, "PREFECT_API_AUTH_STRING"), (404, "ends in /api")])
def test_a_prefect_server_that_refuses_names_what_to_set(code: int, remedy: str) -> None:
    with (
        answering(code) as address,
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(ConfigError, match=remedy),
    ):
        require_prefect()


def test_certificates_are_checked_as_prefects_settings_have_it(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    assert isinstance(tls(), ssl.SSLContext)
    with temporary_settings({PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
        assert tls() is False
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(certificate)}):
        found = tls()
    assert isinstance(found, ssl.SSLContext)
    assert [each["serialNumber"] for each in found.get_ca_certs()] == [serial_of(certificate)]


def serial_of(certificate: Path) -> str:
    """As Python's context prints it."""
    serial = f"{x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number:X}"
    return serial.zfill(len(serial) + len(serial) % 2)
