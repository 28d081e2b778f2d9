"""Thirty kills at random moments."""

import random
import time
from pathlib import Path

import pytest

from tests.faults.cells import bench
from tests.faults.checks import Ended, check
from tests.faults.injections import FAULTS, kill_run_if_any
from tests.faults.moments import Recording

_KILLS = 30
#: Seconds of a run in which a kill may come: from its start to beyond its end.
_LONGEST = 30.0


@pytest.mark.nightly
@pytest.mark.timeout(2 * 3600)
def test_thirty_kills_at_random_moments_cost_nothing(tmp_path: Path) -> None:
    """Of the run, of its worker, or of everything."""
    choices = random.Random(0)
    kills = 0
    with bench(tmp_path, "sqlite", PREFLOW_RESTARTS=str(_KILLS)) as made:
        made.ready("tiny")
        while kills < _KILLS:
            made.prepare("tiny", "validate")
            with Recording(made.site.home) as recording:
                run = made.submit("tiny")
                for _ in range(3):
                    time.sleep(choices.uniform(0, _LONGEST))  # the moment is the test's own choice
                    kind = choices.choice(["flow-sigkill", "worker-sigkill", "reboot"])
                    kills += kill_run_if_any(made.site, kind)
                flow_run = made.end_of(run)
                ended = Ended(
                    made.site, made.prefect, flow_run, recording, made.whole("tiny"), "evaluate", FAULTS["reboot"], 0
                )
                assert list(check(ended)) == [], f"after {kills} kills, the last of them {kind}"
