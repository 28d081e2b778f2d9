"""What makes a stage's result reusable."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from preflow.artifacts import Artifact, build
from preflow.config import Recipe
from preflow.data.files.raw_rows import DataSource
from preflow.fingerprints.code import code_digest
from preflow.models.precision import Precision
from preflow.models.resolve import ModelRef
from preflow.specs import DpoSpec, EvaluateSpec, LengthsSpec, ReferenceSpec, SftSpec, ValidateSpec
from tasks.runtime import caching, libraries
from tasks.runtime.caching import identity

FILES = [f"{kind}.{side}.jsonl" for kind in ("demonstrations", "preferences") for side in ("train", "eval")]


def data_with(**changes: str) -> Artifact:
    """A validate artifact whose files hold their own names, or what is given for the name with ``_`` for its dots."""

    def write(out: Path) -> None:
        for name in FILES:
            key = name.removesuffix(".jsonl").replace(".", "_")
            (out / name).write_text(changes.get(key, name), encoding="utf-8")

    return build(Path(tempfile.mkdtemp()) / "data", write)


DATA = data_with()
BASE = ModelRef(name="tiny", path="/models/tiny", digest="m1")


def recipe(**changes: Any) -> Recipe:
    sections = {"sft": {"dataset": "a"}, "dpo": {"dataset": "b"}}
    for name, value in changes.items():
        section, _, setting = name.rpartition("__")
        if section:
            sections[section][setting] = value
    top = {name: value for name, value in changes.items() if "__" not in name}
    return Recipe.model_validate({"model_name": "tiny", **top, **sections})


def sft(**changes: Any) -> str:
    return identity("sft", SftSpec(recipe=recipe(**changes), base=BASE, data=DATA))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"description": "other"},
        {"sft__logging_steps": 7},
        {"sft__save_steps": 7},
        {"dpo__beta": 0.3},
        {"dpo__learning_rate": 1e-6},
        {"evaluation": {"kl_prompts": 3}},
    ],
)
def test_names_intervals_and_later_settings_hit(changes: dict[str, Any]) -> None:
    assert sft(**changes) == sft()


#: Settings that change the token ids of rows.
RENDERED: list[dict[str, Any]] = [
    {"template": "none"},
    {"chat_template": "{{ messages }}"},
    {"template_date": "2025-01-31"},
    {"system_turn": "drop"},
]


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"sft__learning_rate": 1e-4}, {"tuning": "full"}, {"sft__train_on": "last"}, *RENDERED]
)
def test_settings_that_change_the_weights_miss(changes: dict[str, Any]) -> None:
    assert sft(**changes) != sft()


def test_other_rows_and_other_weights_miss_and_other_places_hit() -> None:
    def spec(data: Artifact = DATA, model: str = "m1", place: str = "/models/tiny") -> str:
        base = ModelRef(name="tiny", path=place, digest=model)
        return identity("sft", SftSpec(recipe=recipe(), base=base, data=data))

    assert spec(data=data_with(demonstrations_train="other")) != spec()
    assert spec(model="m2") != spec()
    assert spec(data=data_with(), place="/elsewhere") == spec()


def identities(data: Artifact, **changes: Any) -> dict[str, str]:
    given: dict[str, Any] = {"recipe": recipe(**changes), "base": BASE, "data": data}
    return {
        "lengths": identity("lengths", LengthsSpec(**given)),
        "sft": identity("sft", SftSpec(**given)),
        "reference": identity("reference", ReferenceSpec(**given)),
        "dpo": identity("dpo", DpoSpec(**given, reference=DATA)),
        "evaluate": identity("evaluate", EvaluateSpec(**given)),
    }


@pytest.mark.parametrize("changes", RENDERED)
def test_every_stage_that_renders_misses_on_how_it_renders(changes: dict[str, Any]) -> None:
    before, after = identities(DATA), identities(DATA, **changes)
    assert {stage for stage in before if before[stage] == after[stage]} == set()


def test_which_answers_are_learnt_is_in_the_stages_that_use_demonstrations() -> None:
    before, after = identities(DATA), identities(DATA, sft__train_on="last")
    assert {stage for stage in before if before[stage] != after[stage]} == {"lengths", "sft", "evaluate"}


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ("demonstrations_train", {"lengths", "sft"}),
        ("demonstrations_eval", {"lengths", "evaluate"}),
        ("preferences_train", {"lengths", "reference"}),
        ("preferences_eval", {"lengths", "reference", "evaluate"}),
    ],
)
def test_a_stage_misses_on_its_own_rows_alone(changed: str, missed: set[str]) -> None:
    before, after = identities(DATA), identities(data_with(**{changed: "other"}))
    assert {stage for stage in before if before[stage] != after[stage]} == missed


def test_another_precision_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """``bf16: auto`` is another arithmetic on another machine."""
    before = sft()
    other = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)
    monkeypatch.setattr("preflow.models.precision.choose_precision", lambda recipe: other)
    assert sft() != before


def test_other_modules_for_adapters_are_looked_for_again() -> None:
    """The lengths stage checks them against the model; without adapters there is nothing to check."""

    def lengths(**changes: Any) -> str:
        return identity("lengths", LengthsSpec(recipe=recipe(**changes), base=BASE, data=DATA))

    assert lengths(lora_target_modules="q_porj") != lengths() == lengths(lora_target_modules="all")
    assert lengths(lora_target_modules="q_porj", tuning="full") == lengths(tuning="full")


@pytest.mark.parametrize(("gpu", "equal"), [(False, False), (True, True)])
def test_auto_and_the_precision_that_it_stands_for_share_what_is_equal(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, equal: bool
) -> None:
    """On a CPU ``auto`` is ``false``, on a GPU with bfloat16 it is ``true``; in every stage that computes."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: gpu)
    for stage, kind in (("sft", SftSpec), ("reference", ReferenceSpec), ("dpo", DpoSpec), ("evaluate", EvaluateSpec)):
        given: dict[str, Any] = {"base": BASE, "data": DATA, **({"reference": DATA} if kind is DpoSpec else {})}
        by_setting = {
            value: identity(stage, kind(recipe=recipe(bf16=value), **given)) for value in ("auto", True, False)
        }
        assert by_setting["auto"] == by_setting[equal]
        assert by_setting[True] != by_setting[False]


@pytest.mark.parametrize("kind", [LengthsSpec, SftSpec, ReferenceSpec, DpoSpec, EvaluateSpec])
def test_a_models_own_code_misses(kind: Any) -> None:
    """With trust_remote_code the same files are another model."""
    parts: dict[str, Any] = {"base": BASE, "data": DATA, **({"reference": DATA} if kind is DpoSpec else {})}
    seen = {identity("sft", kind(recipe=recipe(trust_remote_code=own), **parts)) for own in (False, True)}
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("changes", "package"),
    [
        ({}, "accelerate"),
        ({"optim": "galore_adamw"}, "galore-torch"),
        ({"provider": "unsloth"}, "unsloth"),
        ({"launch": {"num_processes": 2}}, "deepspeed"),
    ],
)
def test_the_version_of_what_a_recipe_uses_misses(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], package: str
) -> None:
    before = sft(**changes)
    own = libraries._version
    monkeypatch.setattr(libraries, "_version", lambda name: "99" if name == package else own(name))
    assert sft(**changes) != before


@pytest.mark.parametrize("package", ["great-expectations", "ftfy", "rapidfuzz", "xxhash", "orjson"])
def test_the_version_of_what_checks_rows_misses(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    def validate() -> str:
        return identity("validate", ValidateSpec(preferences=(DataSource(path="/p.jsonl", digest="p"),)))

    before, own = validate(), libraries._version
    monkeypatch.setattr(libraries, "_version", lambda name: "99" if name == package else own(name))
    assert validate() != before


def test_the_code_of_a_launch_counts_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before, own = (sft(), sft(launch={"num_processes": 2})), code_digest
    monkeypatch.setattr(
        caching,
        "code_digest",
        lambda *roots, **given: "new" if any(".worker:" in root for root in roots) else own(*roots, **given),
    )
    after = sft(), sft(launch={"num_processes": 2})
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_dpo_depends_on_the_sft_model_and_the_reference() -> None:
    def spec(sft: str = "s", reference: str = "r") -> str:
        models = {
            "sft": Artifact(path="/s", digest=sft, bytes=1),
            "reference": Artifact(path="/r", digest=reference, bytes=1),
        }
        return identity("dpo", DpoSpec(recipe=recipe(), base=BASE, data=DATA, **models))

    assert len({spec(), spec(sft="s2"), spec(reference="r2")}) == 3


def test_a_library_version_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sft()
    monkeypatch.setattr(libraries, "_version", lambda name: "0.0")
    assert sft() != before


def test_changed_code_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sft()
    monkeypatch.setattr(caching, "code_digest", lambda *roots, **given: f"{roots} changed")
    assert sft() != before


def test_the_same_rows_under_another_name_hit() -> None:
    def spec(path: str, digest: str) -> str:
        source = DataSource(path=path, digest=digest)
        return identity("validate", ValidateSpec(preferences=(source,)))

    assert spec("/a.jsonl", "x") == spec("/b.jsonl", "x")
    assert spec("/a.jsonl", "x") != spec("/a.jsonl", "y")


class Record:
    def __init__(self, result: Any) -> None:
        self.result = result


class Store:
    """What the key function asks of Prefect's result store."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def exists(self, key: str) -> bool:
        return True

    def read(self, key: str) -> Record:
        return Record(self._read())


def gone() -> Any:
    raise ValueError("outside of the base path")


@pytest.mark.parametrize(("read", "kept"), [(lambda: DATA, True), (lambda: BASE, False), (gone, False)])
def test_only_a_record_of_the_artifact_that_was_read_again_is_kept(
    read: Callable[[], Any], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SftSpec(recipe=recipe(), base=BASE, data=DATA)
    monkeypatch.setattr(caching, "KEYS", tmp_path)
    monkeypatch.setattr(caching, "find", lambda folder: DATA)
    record = tmp_path / f"sft-{identity('sft', spec)}"
    record.write_text("{}")

    class Context:
        class task:  # noqa: N801
            name = "sft"

        result_store = Store(read)

    key = caching.verified_key(Context(), {"spec": spec})  # type: ignore[arg-type]
    assert key == record.name
    assert record.exists() is kept
