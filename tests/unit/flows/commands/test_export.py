"""A run's adapter becomes full weights that say the same, or nothing."""

from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.commands.export import export
from preflow.config import Recipe
from preflow.errors import ConfigError, ModelError
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import load_policy
from preflow.models.merge import where_it_fits
from preflow.models.precision import Precision, choose_precision
from preflow.models.scoring import response_logprobs
from tasks.tracking.past_runs import PastRun
from tests.fixtures.prepared_run import Run


def past(run: Run, *stages: str) -> PastRun:
    every = {"validate": run.data, "sft": run.sft, "reference": run.reference}
    return PastRun(run_id="r", recipe=run.recipe, artifacts={stage: every[stage] for stage in stages})


@pytest.mark.slow
@pytest.mark.parametrize("stages", [("sft", "reference"), ("sft", "validate")])
def test_merged_weights_load_without_peft_and_say_the_same(
    prepared: Run,
    tmp_path: Path,
    stages: tuple[str, ...],
) -> None:
    out = tmp_path / "new" / "merged"
    merge_error = export(past(prepared, *stages), out)
    assert 0 <= merge_error < 1e-4
    precision = choose_precision(prepared.recipe)
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert AutoTokenizer.from_pretrained(out).chat_template
    row = read_pairs(prepared.reference.file("eval.parquet"))[0].chosen
    trained = load_policy(prepared.base, prepared.sft.file("model"), prepared.recipe, precision)
    base = load_policy(prepared.base, None, prepared.recipe, precision)
    with torch.no_grad():
        got, expected, before = (response_logprobs(m, row, precision) for m in (merged, trained, base))
    assert torch.allclose(got, expected, atol=1e-3)
    assert not torch.allclose(got, before, atol=1e-2), "a merge that forgot the adapter would pass"


def test_a_merge_that_forgets_the_adapter_is_refused_and_leaves_nothing(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(ModelError, match="the merged model's log-probs differ"):
        export(past(prepared, "sft", "reference"), tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_a_merge_that_breaks_off_leaves_nothing(
    prepared: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("preflow.models.merge._read_back", full)
    with pytest.raises(OSError, match="No space left"):
        export(past(prepared, "sft", "reference"), tmp_path / "merged")
    assert not list(tmp_path.glob("merged*"))


def test_the_model_of_the_last_stage_is_exported(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []

    def merge(base: object, trained: Path, *_: object) -> float:
        taken.append(trained)
        return 0.0

    monkeypatch.setattr("preflow.models.merge.merge", merge)
    run = past(prepared, "sft", "reference")
    dpo = prepared.sft.model_copy(update={"path": str(tmp_path / "dpo")})
    export(PastRun(run_id="r", recipe=run.recipe, artifacts={**run.artifacts, "dpo": dpo}), tmp_path / "merged")
    export(run, tmp_path / "merged")
    assert taken == [dpo.file("model"), prepared.sft.file("model")]


def test_a_folder_in_the_way_is_left_alone(prepared: Run, tmp_path: Path) -> None:
    kept = tmp_path / "merged.partial" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(ModelError, match=r"merged\.partial exists"):
        export(past(prepared, "sft", "reference"), tmp_path / "merged")
    assert kept.read_text() == "mine"


def test_a_merge_goes_on_on_the_cpu_where_a_gpu_lacks_memory() -> None:
    asked: list[str] = []

    def work(precision: Precision) -> str:
        asked.append(precision.device.type)
        if precision.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    card = Precision(torch.device("cuda"), torch.bfloat16, torch.bfloat16)
    assert where_it_fits(card, work) == "done"
    assert asked == ["cuda", "cpu"]

    def wrong(precision: Precision) -> str:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        where_it_fits(card, wrong)


def test_what_cannot_be_merged_is_said(prepared: Run, tmp_path: Path) -> None:
    run = past(prepared, "sft", "reference")
    with pytest.raises(ConfigError, match="exists"):
        export(run, tmp_path)
    full = Recipe.model_validate({**run.recipe.model_dump(), "tuning": "full"})
    with pytest.raises(ConfigError, match="tuning: full"):
        export(run.model_copy(update={"recipe": full}), tmp_path / "merged")
