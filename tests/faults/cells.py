"""One cell of the kill matrix: a run that is given a fault inside a stage, and all that must hold at its end."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import make_model, write_tiny_recipe
from tests.faults.checks import Ended, check
from tests.faults.injections import FAULTS, STAGES
from tests.faults.moments import Recording, held_inside, newest_checkpoint
from tests.faults.prefect_records import Prefect
from tests.faults.services import POOL, Site, wait_until
from tests.integration.conftest import ROOT
from tests.integration.servers.commands import preflow

DATABASES = ("sqlite", "postgresql")
#: Seconds in which a run must come into a stage, and in which it must end after its fault.
_REACH, _END = 900.0, 1500.0
_STEPS, _SAVE = 24, 2


@dataclass(frozen=True, order=True)
class Cell:
    """A fault inside a stage."""

    database: str
    fault: str
    stage: str

    def __str__(self) -> str:
        return f"{self.database}/{self.fault}/{self.stage}"


@dataclass(frozen=True)
class Result:
    """How a cell ended: what did not hold, nothing where all did."""

    cell: Cell
    faults: tuple[str, ...]
    seconds: float
    how: str


def all_cells() -> list[Cell]:
    """Every cell of the matrix."""
    return [
        Cell(database, name, stage)
        for database in DATABASES
        for name, fault in FAULTS.items()
        for stage in STAGES
        if stage in fault.stages and database in fault.databases
    ]


class Bench:
    """A site with an uninterrupted run, whose artifacts every cell begins with and is compared to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.prefect = Prefect(site.environment["PREFECT_API_URL"])
        self._whole = {name: site.folder / f"whole-{name}" for name in ("tiny", "ranks")}
        self._deployments: dict[str, str] = {}

    def recipe(self, stage_fault: str) -> str:
        """Which recipe a fault needs."""
        return "ranks" if stage_fault == "rank-sigkill" else "tiny"

    def ready(self, name: str) -> None:
        """Deploy a recipe and run it whole, once."""
        if name in self._deployments:
            return
        folder = self.site.folder / name
        folder.mkdir(exist_ok=True)
        model = self.site.folder / "model"
        if not model.exists():
            make_model(model)
        training = {"max_steps": _STEPS, "save_steps": _SAVE}
        launch = {"num_processes": 2, "config": str(ROOT / "infra" / "accelerate" / "cpu.yaml")}
        changes: dict[str, Any] = {"name": name, **({"launch": launch} if name == "ranks" else {})}
        file = write_tiny_recipe(folder, model, training, **changes)
        preflow(self.site.environment, "deploy", str(file), "--pool", POOL)
        self._deployments[name] = self.prefect.deployment(f"two-stage/{name}")
        shutil.rmtree(self.site.home / "store", ignore_errors=True)
        run = self.submit(name)
        ended = self.end_of(run)
        assert ended["state"]["type"] == "COMPLETED", f"the uninterrupted run: {ended['state']}"
        shutil.copytree(self.site.home / "store", self._whole[name])

    def whole(self, name: str) -> Path:
        """The store of the uninterrupted run of a recipe."""
        return self._whole[name]

    def submit(self, name: str) -> str:
        """Ask for a run; its id."""
        return self.prefect.submit(self._deployments[name])

    def end_of(self, run: str) -> dict[str, Any]:
        """A run that has ended for good."""
        seen = wait_until(lambda: self.prefect.ended(run), _END, f"run {run} does not end: {self.site.folder}")
        return dict(seen)

    def prepare(self, name: str, stage: str) -> None:
        """Leave in the store what the stages before one have made."""
        store = self.site.home / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self._whole[name], store)
        for later in STAGES[STAGES.index(stage) :]:
            shutil.rmtree(store / later, ignore_errors=True)
        if STAGES.index(stage) <= STAGES.index("reference"):
            shutil.rmtree(store / "logprobs", ignore_errors=True)

    def run(self, cell: Cell, outage: float) -> Result:
        """Give a run its fault and see what becomes of it."""
        fault, name, begin = FAULTS[cell.fault], self.recipe(cell.fault), time.monotonic()
        self.ready(name)
        self.prepare(name, cell.stage)
        how = "by itself"
        with Recording(self.site.home) as recording:
            run = self.submit(name)
            with held_inside(recording, cell.stage, _REACH) as process:
                fault.now(self.site, process)
                kept = newest_checkpoint(self.site.home, cell.stage)
            fault.then(self.site, outage)
            flow_run = self.end_of(run)
            if flow_run["state"]["type"] == "CRASHED":
                how = "one command"
                flow_run = self.end_of(self.submit(name))
            fault.at_end(self.site)
            if cell.fault in ("mlflow-gone", "artifacts-read-only"):
                preflow(self.site.environment, "sync")
            ended = Ended(self.site, self.prefect, flow_run, recording, self._whole[name], cell.stage, fault, kept)
            found = tuple(check(ended))
        return Result(cell, found, time.monotonic() - begin, f"{how}, attempt {flow_run['run_count']}")


@contextmanager
def bench(folder: Path, database: str, **environment: str) -> Iterator[Bench]:
    """Servers and a worker, which are given more of an environment, with nothing run yet."""
    with Site(folder, database, **environment).running() as site:
        yield Bench(site)
