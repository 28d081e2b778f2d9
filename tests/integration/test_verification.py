"""The nightly proposal really runs; its run is verified back to its raw rows, and one changed byte is found by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.commands.app import make_app
from flows.commands.verify import checked
from preflow.verification.check import Check
from tests.integration.conftest import Pipeline


def flip(file: Path) -> bytes:
    """Change one byte in the middle of a file; its contents before."""
    before = file.read_bytes()
    middle = len(before) // 2
    file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    return before


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@pytest.mark.slow
def test_a_nightly_proposal_is_verified_one_changed_byte_is_found_by_name_and_a_moved_home_still_verifies(
    served: Pipeline,
    tiny_recipe_file: Callable[..., Path],
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tiny_recipe_file()
    done = served.start(str(file), module="tests.integration.nightly")
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("PREFLOW_HOME", str(served.home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from tasks.evidence import place_of
    from tasks.tracking.client import client
    from tasks.tracking.registry.cards import decisions_on
    from tasks.tracking.registry.checks import version_of
    from tasks.tracking.registry.decisions import Draft
    from tasks.tracking.registry.moves import take
    from tasks.tracking.registry.versions import read_model

    (parent,) = [run for run in served.runs() if run.data.tags.get("kind") == "pipeline"]
    run_id = parent.info.run_id

    (registered,) = [model.name for model in client().search_registered_models()]
    version = version_of(registered, "challenger")
    (proposed,) = decisions_on(registered)
    assert proposed.outcome in ("eligible", "refused", "inconclusive"), "a proposal moves nothing"
    assert proposed.outcome in done.stdout
    assert proposed.chosen == place_of(version)
    assert proposed.evidence["against"] == "sft model"
    assert read_model(registered).aliases == {"challenger": version.number}
    place = place_of(version)
    draft = Draft(model=registered, outcome="promoted", champion=None, chosen=place, reasons=("planted",))
    take(draft, parent.info.experiment_id)
    card = client().get_model_version(registered, str(version.number)).description
    assert "- Decision 2" in card
    assert "planted" in card

    def verified() -> Check:
        return checked(f"{registered}@champion")

    assert not [(each.name, each.detail) for each in verified().failed()]

    store, artifacts = served.home / "store", served.home / "mlflow" / "artifacts"

    def stage_file(artifacts: Path, stage: str, name: str) -> Path:
        (run,) = [each for each in served.runs() if each.data.tags.get("stage") == stage]
        return artifacts / str(run.info.run_id) / "artifacts" / name

    kept = artifacts / run_id / "artifacts"
    raw = Path(json.loads(parent.inputs.dataset_inputs[0].dataset.source)["uri"])
    planted = {
        raw: str(raw),
        one(store, "sft/*/model/adapter_model.safetensors"): "sft",
        one(store, "dpo/*/model/adapter_model.safetensors"): "dpo",
        one(store, "reference/*/train.parquet"): "reference",
        one(store, "evaluate/*/evaluation.json"): "evaluate",
        kept / "recipe.yaml": "recipe.yaml",
        kept / "model_card.md": "model card",
        tiny_folder / "model.safetensors": "base model",
        next(artifacts.glob("*/artifacts/decision.json")): "decisions",
        stage_file(artifacts, "dpo", "specification.json"): "identity of dpo",
        **{
            kept / "registered_model" / name: "files of version 1"
            for name in (
                *("artifacts/model/adapter_model.safetensors", "artifacts/recipe.json", "artifacts/manifest.json"),
                *("MLmodel", "chat_model.py", "files.json"),
            )
        },
    }
    for changed, name in planted.items():
        before = flip(changed)
        failed = {each.name: each for each in verified().failed()}
        changed.write_bytes(before)
        assert failed[name].state == "changed", (changed, failed)
        if name in {"sft", "dpo", "reference", "evaluate"}:
            assert changed.name in failed[name].detail
    stage = next(run for run in served.runs() if run.data.tags.get("stage") == "dpo")
    client().set_tag(stage.info.run_id, "artifact_digest", "0" * 64)
    assert {each.name for each in verified().failed()} >= {"dpo", "files of version 1"}
    client().set_tag(stage.info.run_id, "artifact_digest", stage.data.tags["artifact_digest"])

    command = make_app()
    moved = served.home.rename(served.folder / "moved")
    monkeypatch.setenv("PREFLOW_HOME", str(moved))
    for named in (run_id, f"{registered}@champion"):
        shown = CliRunner().invoke(command, ["verify", named])
        assert (shown.exit_code, "all is as it was" in shown.output) == (0, True), shown.output
    raw.rename(raw.with_suffix(".gone"))
    assert CliRunner().invoke(command, ["verify", run_id]).exit_code == 1
    assert CliRunner().invoke(command, ["verify", run_id, "--allow-missing"]).exit_code == 0
    assert CliRunner().invoke(command, ["verify", "no-such-run"]).exit_code == 2
    folder = one(moved / "store", "dpo/*/model").parent
    assert CliRunner().invoke(command, ["verify", str(folder)]).exit_code == 0
    flip(folder / "training.json")
    assert CliRunner().invoke(command, ["verify", str(folder)]).exit_code == 1
