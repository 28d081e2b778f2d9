"""A recipe with seven registered versions, and ``preflow promote`` on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.evidence
import tasks.promotion
from flows.commands.app import make_app
from preflow.artifacts import Artifact
from preflow.config import Recipe
from preflow.errors import ConfigError
from preflow.stages.promotion import Measured
from tasks.evidence import LeftOut
from tasks.tracking.client import client
from tasks.tracking.past_runs import PastRun
from tasks.tracking.registry.versions import CHALLENGER
from tests.fixtures.registered_versions import COUNTS, KL, named, rows


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def file(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A recipe with seven registered versions whose measures are ``COUNTS``."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    store, name = client(), f"m{abs(hash(request.node.name))}"
    experiment = store.create_experiment(name, artifact_location=(database.parent / "artifacts").as_uri())
    store.create_registered_model(name)
    runs = {}
    for number in COUNTS:
        run = store.create_run(experiment).info.run_id
        runs[run] = number
        tags = {"artifact_digest": f"{number}" * 64, "stage": "dpo"}
        store.create_model_version(name, f"file:///{number}", run, tags=tags)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: {name}\nmodel_name: m\nsft: {{dataset: a}}\ndpo: {{dataset: b}}\n")

    def past_run(name: str, run_id: str) -> PastRun:
        if run_id not in runs:
            raise ConfigError(f"MLflow has no run {run_id}")
        made = Artifact(path="/a", digest=f"{runs[run_id]}" * 64, bytes=0)
        found = Recipe.model_validate({"name": name, "model_name": "m", "sft": {}, "dpo": {}})
        return PastRun(run_id=run_id, recipe=found, artifacts={"validate": made, "dpo": made})

    def measured(challenger: Any, observer: object) -> Measured:
        number = challenger.version.number
        better, worse, equal = COUNTS[number]
        return Measured(rows([1.0] * better + [0.0] * worse + [1.0] * equal), 10.0, 5.0, KL.get(number, 1.0))

    def champion(state: object, version: object, challenger: Any, folder: Path, observer: object) -> Measured:
        better, worse, equal = COUNTS[challenger.version.number]
        return Measured(rows([0.0] * better + [1.0] * worse + [1.0] * equal), 10.0, 5.0, None)

    replaced: dict[str, Any] = {
        "past_run": past_run,
        "_measure_challenger": measured,
        "_measure_champion": champion,
        "_trained_on": lambda version: LeftOut(),
        "load_pairs": lambda artifact, side: ["a pair"],
        "held_out_digest": lambda spec: "d" * 64,
        "require_whole": lambda name, version: None,
    }
    for name_of, value in replaced.items():
        monkeypatch.setattr(tasks.promotion, name_of, value)
    monkeypatch.setattr(tasks.evidence, "evaluation_of", lambda run: type("Spec", (), {"dpo": 1, "sft": 1})())
    return recipe


@pytest.fixture
def promote(file: Path) -> Callable[..., tuple[int, str]]:
    """Runs ``preflow promote`` on a version; its exit code and what it prints."""

    def run(number: int, *arguments: str) -> tuple[int, str]:
        client().set_registered_model_alias(named(file), CHALLENGER, str(number))
        done = CliRunner().invoke(make_app(), ["promote", str(file), *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, " ".join(done.output.split())

    return run
