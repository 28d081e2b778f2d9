"""Finished models in MLflow's registry: registered once, loaded from anywhere, held to their digests."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from preflow.artifacts import Artifact, build
from preflow.errors import ArtifactError, PromotionError
from preflow.models.resolve import ModelRef
from preflow.verification.check import Check
from tasks.tracking.client import client
from tasks.tracking.registry.checks import verify_version
from tasks.tracking.registry.decisions import Draft, Place
from tasks.tracking.registry.integrity import require_whole
from tasks.tracking.registry.moves import take
from tasks.tracking.registry.package import Candidate
from tasks.tracking.registry.rollback import roll_back
from tasks.tracking.registry.versions import CHALLENGER, CHAMPION, Version, read_model, register
from tests.fixtures.prepared_run import Run

pytestmark = pytest.mark.slow  # MLflow's import and tables take seconds
QUESTION: dict[str, Any] = {"messages": [{"role": "user", "content": "Where is order 3?"}], "max_tokens": 6}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def run_id(database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pipeline run in a database that the tests of this module share."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    store = client()
    found = store.get_experiment_by_name("recipe")
    place = (database.parent / "artifacts").as_uri()
    experiment = found.experiment_id if found else store.create_experiment("recipe", artifact_location=place)
    return str(store.create_run(experiment).info.run_id)


def candidate(prepared: Run, name: str, **changes: Any) -> Candidate:
    values = {"stage": "sft", "artifact": prepared.sft, "recipe": prepared.recipe, "base": prepared.base}
    return Candidate(**{**values, "name": name, "description": "# What it is", **changes})


def another(prepared: Run, folder: Path) -> Artifact:
    """The same model in an artifact of another digest."""

    def write(out: Path) -> None:
        shutil.copytree(prepared.sft.path, out, dirs_exist_ok=True)
        (out / "more.json").write_text("{}\n")

    return build(folder / "another", write)


def answer(name: str, alias: str = CHALLENGER, **places: str) -> str:
    model = mlflow.pyfunc.load_model(f"models:/{name}@{alias}", model_config=places or None)
    (choice,) = model.predict(QUESTION)["choices"]
    assert choice["message"]["role"] == "assistant"
    return str(choice["message"]["content"])


def test_a_model_is_registered_once_and_is_the_challenger(prepared: Run, run_id: str, tmp_path: Path) -> None:
    first = register(run_id, candidate(prepared, "once"))
    assert register(run_id, candidate(prepared, "once")) == first, "the same digest is the same version"
    assert (first.number, first.run_id, first.artifact_digest) == (1, run_id, prepared.sft.digest)
    assert client().get_model_version("once", "1").description == "# What it is"
    second = register(run_id, candidate(prepared, "once", artifact=another(prepared, tmp_path)))
    model = read_model("once")
    assert (second.number, model.aliases) == (2, {CHALLENGER: 2})
    client().set_registered_model_alias("once", CHAMPION, "1")
    register(run_id, candidate(prepared, "once"))
    assert read_model("once").aliases[CHALLENGER] == 2, "the champion is nobody's challenger"  # glossary: allow nobody


def test_a_registered_adapter_answers_from_another_folder_and_over_a_moved_base(
    prepared: Run, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    """The same tokens as the library's own model, greedily."""
    register(run_id, candidate(prepared, "answers"))
    monkeypatch.chdir(tmp_path)
    here = answer("answers")
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_folder, moved)
    assert answer("answers", base=str(moved)) == here == expected(prepared)
    with pytest.raises(FileNotFoundError, match="model_config"):
        answer("answers", base=str(tmp_path / "nowhere"))
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file that was registered"):
        answer("answers", base=str(moved))


def test_registering_and_loading_warn_of_nothing_and_a_call_may_give_its_settings_as_params(
    prepared: Run, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        register(run_id, candidate(prepared, "silent"))
        model = mlflow.pyfunc.load_model(f"models:/silent@{CHALLENGER}")
    assert not [str(each.message) for each in said if issubclass(each.category, UserWarning)]
    asked = {"messages": QUESTION["messages"]}
    (made,) = [model.predict(asked, params={"max_tokens": 2})]
    (table,) = model.predict(pd.DataFrame([{**asked, "max_tokens": 2}]))
    turns = model.predict(asked["messages"], params={"max_tokens": 2})
    assert made["usage"]["completion_tokens"] <= 2
    assert made["choices"] == table["choices"] == turns["choices"]
    assert not [each for each in caplog.messages if "signature" in each or "params" in each]


def expected(prepared: Run) -> str:
    from preflow.data.rows import Message
    from preflow.evaluation.generation import generate
    from preflow.evaluation.models import ModelSet
    from preflow.specs import EvaluateSpec

    spec = EvaluateSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=prepared.sft)
    models = ModelSet(spec)
    ids = models.renderer.prompt_ids([Message("user", "Where is order 3?")])
    (made,) = generate(models, "sft", [ids], 6, sample=False)
    return str(models.tokenizer.decode(made, skip_special_tokens=True)).strip()


def test_after_a_rollback_the_champion_answers_the_same_bytes(prepared: Run, run_id: str, tmp_path: Path) -> None:
    """Version 2 has the SFT adapter's shapes with weights drawn at random, so that its answers are others."""

    def drawn(out: Path) -> None:
        shutil.copytree(prepared.sft.path, out, dirs_exist_ok=True)
        file = out / "model" / "adapter_model.safetensors"
        torch.manual_seed(0)
        save_file({name: torch.randn_like(value) for name, value in load_file(file).items()}, file)
        (out / "manifest.json").unlink()

    first = register(run_id, candidate(prepared, "back"))
    experiment, before = client().get_run(run_id).info.experiment_id, None
    another_run = client().create_run(experiment).info.run_id
    second = register(another_run, candidate(prepared, "back", artifact=build(tmp_path / "drawn", drawn)))
    answers = []
    for version in (first, second):
        place = Place(version=version.number, artifact_digest=version.artifact_digest)
        take(Draft(model="back", outcome="promoted", champion=before, chosen=place), experiment)
        before = place
        answers.append(answer("back", CHAMPION).encode())
    assert answers[0] != answers[1]
    decision, unchecked = roll_back("back", None, "Ada", "wrong answers")
    assert (decision.outcome, unchecked) == ("rolled_back", None)
    assert answer("back", CHAMPION).encode() == answers[0]


def test_full_weights_are_registered_by_place_and_digest(
    prepared: Run, run_id: str, tmp_path: Path, tiny_folder: Path
) -> None:
    def write(out: Path) -> None:
        shutil.copytree(tiny_folder, out / "model")

    made = build(tmp_path / "full", write)
    recipe = prepared.recipe.model_copy(update={"tuning": "full"})
    version = register(run_id, candidate(prepared, "full", artifact=made, recipe=recipe))
    files = {each.path for each in client().list_artifacts(run_id, "registered_model/artifacts")}
    assert not [name for name in files if name.endswith(("model", "safetensors"))], "no weights were copied"
    assert answer("full") == answer("full", weights=str(made.file("model")))
    assert require_whole("full", version) is None
    (made.file("model") / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is not the file that was registered"):
        answer("full")
    with pytest.raises(PromotionError, match=r"config\.json has the SHA-256"):
        require_whole("full", version)


def test_an_edited_adapter_and_an_edited_tag_are_found(prepared: Run, run_id: str, database: Path) -> None:
    version = register(run_id, candidate(prepared, "edited"))
    assert require_whole("edited", version) is None
    away = candidate(prepared, "away", base=ModelRef(name="m", path=prepared.base.path, digest="d"))
    another_run = client().create_run(client().get_run(run_id).info.experiment_id).info.run_id
    assert register(another_run, away).number == 1
    with pytest.raises(PromotionError, match="another digest than its tag"):
        require_whole("edited", version.model_copy(update={"artifact_digest": "0" * 64}))
    place = database.parent / "artifacts" / run_id / "artifacts" / "registered_model" / "artifacts" / "model"
    adapter = place / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(PromotionError, match=r"adapter_model\.safetensors has the SHA-256"):
        require_whole("edited", version)
    adapter.unlink()
    with pytest.raises(PromotionError, match=r"adapter_model\.safetensors is missing"):
        require_whole("edited", version)
    shutil.rmtree(place.parent)
    with pytest.raises(PromotionError, match="missing or cannot be read"):
        require_whole("edited", version)


#: By what it makes of a line: each is still read without an error.
EDITS = {
    "MLmodel": ("base_name", "base_nome"),
    "artifacts/recipe.json": ('"seed": ', '"seed": 1'),
    "chat_model.py": ("greedily", "anyhow"),
    "requirements.txt": ("torch==", "torch>="),
    "files.json": ("MLmodel", "MLmodels"),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_file_of_a_version_is_held_to_its_digest(
    prepared: Run, run_id: str, database: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"package-{name.replace('/', '-')}"
    version = register(run_id, candidate(prepared, model))
    answer(model)  # what loading leaves in the folder is no change
    assert require_whole(model, version) is None
    folder = database.parent / "artifacts" / run_id / "artifacts" / "registered_model"
    before = (folder / name).read_text()
    assert EDITS[name][0] in before
    (folder / name).write_text(before.replace(*EDITS[name]))
    with pytest.raises(PromotionError, match=rf"{name} has (the SHA-256|another digest than its tag package_digest)"):
        require_whole(model, version)
    (folder / name).write_text(before)
    assert require_whole(model, version) is None
    (folder / "added.py").write_text("")
    with pytest.raises(PromotionError, match=r"added\.py was added"):
        require_whole(model, version)


def test_a_version_of_before_has_no_list_and_one_whose_tag_is_gone_was_changed(
    prepared: Run, run_id: str, database: Path
) -> None:
    version = register(run_id, candidate(prepared, "listed"))
    (listed,) = read_model("listed").versions
    assert listed == version
    assert len(version.package_digest) == 64
    client().delete_model_version_tag("listed", "1", "package_digest")
    (untagged,) = read_model("listed").versions
    with pytest.raises(PromotionError, match=r"it has a files\.json, but its tag package_digest is gone"):
        require_whole("listed", untagged)
    (database.parent / "artifacts" / run_id / "artifacts" / "registered_model" / "files.json").unlink()
    assert require_whole("listed", untagged) is None
    with pytest.raises(PromotionError, match=r"files\.json cannot be read"):
        require_whole("listed", version)
    whole = verify_version("listed", untagged, Check("run", "ok"), untagged.artifact_digest)
    (files,) = [each for each in whole.all() if each.name == "files of version 1"]
    said = "no digest of its recipe, code and settings was recorded at registration"
    assert (files.state, files.detail) == ("ok", said)


def test_a_model_whose_files_are_gone_is_not_registered(prepared: Run, run_id: str, tmp_path: Path) -> None:
    gone = another(prepared, tmp_path)
    shutil.rmtree(gone.path)
    with pytest.raises(ArtifactError):
        register(run_id, candidate(prepared, "gone", artifact=gone))


def test_a_name_in_another_case_is_named(prepared: Run, run_id: str) -> None:
    client().create_registered_model("Demo_1")
    client().create_registered_model("demoX1")  # an underscore is no wildcard
    with pytest.raises(PromotionError, match="but 'Demo_1', whose name differs in case alone"):
        read_model("demo_1")
    with pytest.raises(PromotionError, match="a run registers its model when it has finished"):
        read_model("demo_2")


def test_a_deleted_version_is_none(prepared: Run, run_id: str) -> None:
    version = register(run_id, candidate(prepared, "deleted"))
    client().delete_model_version("deleted", str(version.number))
    model = read_model("deleted")
    assert (model.versions, model.aliases) == ((), {}), "MLflow drops its alias with it"
    assert isinstance(register(run_id, candidate(prepared, "deleted")), Version)
