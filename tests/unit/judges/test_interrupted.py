"""A judge behind an address that asks to wait, and a process that is killed while it judges."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from preflow.config.evaluation.judge import JudgeSettings
from preflow.judges.endpoint import EndpointJudge
from preflow.judges.verdict import Comparison
from preflow.judges.verdict_store import judge_all
from tests.fixtures.judge_server import JudgeServer, oracle

pytestmark = pytest.mark.slow  # waits, and starts a process

ASKED, AT_ONCE = 60, 4
#: Judges the same comparisons as the test does, in a process of its own.
JUDGE = """
import sys
from pathlib import Path
from tests.unit.judges.test_interrupted import judge_alone
judge_alone(sys.argv[1], Path(sys.argv[2]))
"""


def judge_alone(address: str, folder: Path, count: int = ASKED, at_once: int = AT_ONCE) -> int:
    """Judge; how many verdicts there are."""
    settings = JudgeSettings(
        kind="endpoint", model="judge-1", base_url=address, concurrency=at_once, canaries=0, timeout=10
    )
    asked = [Comparison(f"What is {n}?", f"GOOD {n}", f"BAD {n}") for n in range(count)]
    return len(judge_all(EndpointJudge(settings), asked, folder, lambda done, of: None))


def test_the_wait_that_a_busy_server_asks_for_is_kept_to(tmp_path: Path) -> None:
    """The first retry of a request would not wait by itself."""
    with JudgeServer(oracle).running() as server:
        server.busy_every, server.retry_after = 2, 1
        begin = time.monotonic()
        assert judge_alone(server.address, tmp_path, count=2, at_once=1) == 2
    assert server.refused == 1
    assert time.monotonic() - begin >= 1


def test_a_process_that_is_killed_while_it_judges_loses_what_was_on_its_way_alone(tmp_path: Path) -> None:
    with JudgeServer(oracle).running() as server:
        server.seconds = 0.05
        process = subprocess.Popen([sys.executable, "-c", JUDGE, server.address, str(tmp_path)])
        deadline = time.monotonic() + 60
        while server.calls < ASKED // 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait()
        time.sleep(2 * server.seconds)  # the server counts what it was asked before the kill
        asked = server.calls
        assert ASKED // 3 <= asked < ASKED
        assert judge_alone(server.address, tmp_path) == ASKED
        assert server.calls - ASKED <= 2 * AT_ONCE, "what was asked, and what was answered and not yet stored"
        assert server.calls < ASKED + asked, "not from the beginning"
