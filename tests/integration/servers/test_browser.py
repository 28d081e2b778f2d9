"""A real browser of this machine has a page of the web open, which tries to call both servers: nothing is made."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.fixtures.browser import BROWSER
from tests.integration.conftest import Pipeline
from tests.integration.servers.test_ui import ports, ui, until  # noqa: F401 (fixtures)

#: What would make something: in Prefect a flow, in MLflow an experiment.
FLOW, EXPERIMENT = {"name": "planted"}, {"name": "planted"}
PAGE = """<!doctype html><title>a page of the web</title><pre id="said">waiting</pre><script>
const said = {}
async function attempt(name, address, body, kind, headers = {}) {
  try {
    const options = {method: "POST", body: JSON.stringify(body), mode: kind, headers}
    const answer = await fetch(address, options)
    said[name] = kind === "no-cors" ? "sent" : String(answer.status)
  } catch (error) { said[name] = "refused by the browser" }
}
async function main() {
  const json = {"Content-Type": "application/json"}
  for (const [server, address, body] of %(targets)s) {
    await attempt(server + " as JSON", address, body, "cors", json)
    await attempt(server + " as text, answer unread", address, body, "no-cors")
    await attempt(server + " as text", address, body, "cors")
  }
  const api = "http://rebound.test:%(prefect)s/api"
  try {  // the token is what it would need, and may not read
    const token = await (await fetch(api + "/csrf-token?client=planted")).json()
    const headers = {...json, "Prefect-Csrf-Token": token.token, "Prefect-Csrf-Client": "planted"}
    await attempt("prefect with a token", api + "/flows/", %(flow)s, "cors", headers)
  } catch (error) { said["prefect with a token"] = "refused by the browser" }
  document.getElementById("said").textContent = JSON.stringify(said)
}
main()
</script>"""


@contextmanager
def page_of_the_web(text: str) -> Iterator[int]:
    """A server of one page; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def browsed(address: str, profile: Path, *options: str) -> str:
    """A page as the browser has it when its scripts have run; ``*.test`` are names of this machine."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", *options]
    command += ["--host-resolver-rules=MAP *.test 127.0.0.1", "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


def flows_at(prefect: int) -> set[str]:
    api = f"http://127.0.0.1:{prefect}/api"
    token = httpx.get(f"{api}/csrf-token", params={"client": "test"}, timeout=30).json()["token"]
    headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
    found = httpx.post(f"{api}/flows/filter", json={}, headers=headers, timeout=30).raise_for_status().json()
    return {flow["name"] for flow in found}


def experiments_at(mlflow: int) -> set[str]:
    address = f"http://127.0.0.1:{mlflow}/api/2.0/mlflow/experiments/search"
    found = httpx.post(address, json={"max_results": 100}, timeout=30).raise_for_status().json()
    return {experiment["name"] for experiment in found["experiments"]}


@pytest.mark.nightly
@pytest.mark.server
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_page_of_the_web_starts_nothing(
    ui: "subprocess.Popen[bytes]",  # noqa: F811
    ports: tuple[int, int],  # noqa: F811
    pipeline: Pipeline,
    tmp_path: Path,
) -> None:
    """Neither from another origin nor, with a name that means this machine, from what looks like the server's own."""
    mlflow, prefect = ports
    until(lambda: "Ctrl-C stops" in (pipeline.folder / "ui.log").read_text(), "the servers came up")
    targets = [
        [f"{server} as {name}", f"http://{name}:{port}{path}", body]
        for server, port, path, body in (
            ("prefect", prefect, "/api/flows/", FLOW),
            ("mlflow", mlflow, "/api/2.0/mlflow/experiments/create", EXPERIMENT),
        )
        for name in ("127.0.0.1", "localhost", "rebound.test")
    ]
    text = PAGE % {"targets": json.dumps(targets), "prefect": prefect, "flow": json.dumps(FLOW)}
    with page_of_the_web(text) as port:
        shown = browsed(f"http://web.test:{port}/", tmp_path / "profile")
    said = json.loads(re.search(r'<pre id="said">(.*?)</pre>', shown, re.DOTALL)[1])  # type: ignore[index]
    assert len(said) == 3 * len(targets) + 1, said
    made = {"prefect": flows_at(prefect), "mlflow": experiments_at(mlflow)}
    assert "planted" not in made["prefect"] | made["mlflow"], (made, said)
    for server, port in (("prefect", prefect), ("mlflow", mlflow)):
        own = browsed(f"http://rebound.test:{port}/", tmp_path / f"profile-{server}")
        assert "<title>MLflow</title>" not in own, "a page under another name is not served either"
        assert "<title>Prefect Server</title>" not in own
