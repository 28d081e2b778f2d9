"""Every wrong way to start the second stage is refused, by an error that names the cause."""

import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from preflow.artifacts import Artifact, build
from preflow.config.losses import LOSSES
from preflow.dpo import start_checks
from preflow.dpo.start import load_start, prove_reference
from preflow.dpo.trainer import make_trainer, policy_scores
from preflow.errors import (
    AdapterDtypeError,
    DpoCheckpointError,
    ForgottenSftError,
    PolicyMismatchError,
    StoredValueError,
)
from preflow.logprobs.cli import app
from preflow.logprobs.scored_pairs import read_pairs
from preflow.logprobs.store import STORE_FILE
from preflow.maths.agreement import Agreement
from preflow.models.adapters import save_model, trainable_parameters, write_card
from preflow.models.loading import load_policy, load_tokenizer
from preflow.models.precision import choose_precision
from preflow.models.scoring import scores
from preflow.observer import Silent
from preflow.specs import DpoSpec, ReferenceSpec, SftSpec
from preflow.stages import dpo as dpo_stage
from preflow.stages import reference as reference_stage
from preflow.stages.dpo import run_dpo
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from tests.fixtures.prepared_run import Run
from tests.unit.dpo.start_models import base, going_on, overwritten
from tests.unit.support import recipe_for, write_pairs


@pytest.mark.slow
def test_a_reference_computed_with_the_base_model_is_refused(prepared: Run, tmp_path: Path) -> None:
    """Stored values of the base where SFT's belong: policy and store may agree, the SFT artifact does not.

    They come without the digests of their weights, which ``test_weight_checks`` covers.
    """
    asked = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=None)

    def write(out: Path) -> None:
        run_reference(asked, out, Silent())
        (out / STORE_FILE).unlink()

    with pytest.raises(StoredValueError, match="independent forward"):
        run_dpo(prepared.dpo(reference=build(tmp_path / "reference", write)), tmp_path / "out", Silent())


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", pytest.param("one", marks=pytest.mark.slow)])
def test_the_printed_remedy_removes_wrong_values(
    prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
) -> None:
    """A faulty device filled the store. Following the message to the letter ends in a run that is proven."""
    asked = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=prepared.sft)
    right, seen = scores, list[int]()

    def wrong(*arguments: Any) -> Iterator[list[torch.Tensor]]:
        for responses in right(*arguments):
            seen.append(1)
            yield [values - 1 for values in responses] if rows == "all" or len(seen) == 2 else responses

    def run() -> DpoSpec:
        return prepared.dpo(reference=build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent())))

    with monkeypatch.context() as patch:
        patch.setattr(reference_stage, "scores", wrong)
        spec = run()
    with pytest.raises(StoredValueError if rows == "all" else PolicyMismatchError) as error:
        run_dpo(spec, tmp_path / "out", Silent())
    command, folder = re.search(r"`preflow store (.*)`.*artifact \((.*?)\)", str(error.value)).groups()  # type: ignore[union-attr]
    assert CliRunner().invoke(app, command.split()).exit_code == 0
    shutil.rmtree(folder)
    run_dpo(run(), tmp_path / "again", Silent())


@pytest.mark.slow
def test_one_stale_value_in_the_store_is_refused(prepared: Run, tmp_path: Path) -> None:
    pairs = list(read_pairs(prepared.reference.file("train.parquet")))
    pairs[7] = replace(pairs[7], ref_rejected=[value + 0.01 for value in pairs[7].ref_rejected])

    def write(out: Path) -> None:
        write_pairs(out / "train.parquet", pairs)

    with pytest.raises((StoredValueError, PolicyMismatchError), match=r"p\.jsonl:7 rejected"):
        run_dpo(prepared.dpo(reference=build(tmp_path / "stale", write)), tmp_path / "out", Silent())


def forgotten_sft(run: Run, folder: Path) -> Artifact:
    """An SFT artifact whose adapter changes nothing: B is zero, as before training."""

    def write(out: Path) -> None:
        save_model(overwritten(run), load_tokenizer(run.base, run.recipe), run.base, [1], out / "model")

    return build(folder / "forgotten", write)


@pytest.mark.slow
def test_an_sft_model_that_equals_the_base_is_refused(prepared: Run, tmp_path: Path) -> None:
    sft = forgotten_sft(prepared, tmp_path)
    asked = ReferenceSpec(recipe=prepared.recipe, base=prepared.base, data=prepared.data, sft=sft)
    reference = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    with pytest.raises(ForgottenSftError, match="SFT weights were lost"):
        run_dpo(prepared.dpo(sft=sft, reference=reference), tmp_path / "out", Silent())


def test_a_dpo_checkpoint_as_sft_model_is_refused(prepared: Run, tmp_path: Path) -> None:
    """TRL's own checkpoint of a PEFT policy keeps the reference as a second adapter."""
    checkpoint = tmp_path / "checkpoint" / "model"
    model = going_on(prepared)
    model.add_adapter("ref", model.peft_config["default"])
    model.save_pretrained(str(checkpoint))
    sft = Artifact(path=str(tmp_path / "checkpoint"), digest="-", bytes=0)
    precision = choose_precision(prepared.recipe)
    assert prepared.recipe.dpo is not None
    with pytest.raises(DpoCheckpointError, match="second adapter 'ref'"):
        load_start(prepared.dpo(sft=sft), prepared.recipe.dpo, precision)


def test_a_finished_dpo_model_as_sft_model_is_refused(prepared: Run, tmp_path: Path) -> None:
    def write(out: Path) -> None:
        save_model(
            going_on(prepared), load_tokenizer(prepared.base, prepared.recipe), prepared.base, [1], out / "model"
        )
        write_card(out / "model", prepared.base, "dpo")

    assert prepared.recipe.dpo is not None
    spec = prepared.dpo(sft=build(tmp_path / "aligned", write))
    with pytest.raises(DpoCheckpointError, match="made by a DPO stage"):
        load_start(spec, prepared.recipe.dpo, choose_precision(prepared.recipe))


@pytest.mark.slow
def test_full_weights_are_copied_and_proven(prepared: Run, tmp_path: Path) -> None:
    recipe = recipe_for(prepared.base, tuning="full")
    spec = SftSpec(recipe=recipe, base=prepared.base, data=prepared.data)
    sft = build(tmp_path / "sft", lambda out: run_sft(spec, out, Silent()))
    asked = ReferenceSpec(recipe=recipe, base=prepared.base, data=prepared.data, sft=sft)
    reference = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    spec_dpo = prepared.dpo(recipe=recipe, sft=sft, reference=reference)
    dpo = build(tmp_path / "dpo", lambda out: run_dpo(spec_dpo, out, Silent()))
    assert dpo.load("metrics.json")["dpo/first_loss"] == pytest.approx(0.693147, abs=1e-3)
    assert dpo.file("model/model.safetensors").is_file()
    assert dpo.load("metrics.json")["dpo/proof_policy_gap"] <= 1


@pytest.mark.slow
def test_dpo_alone_starts_at_the_named_model(prepared: Run, tmp_path: Path) -> None:
    assert prepared.recipe.dpo is not None
    section = prepared.recipe.dpo.model_dump(exclude={"learning_rate"})
    recipe = recipe_for(prepared.base, strategy="dpo", sft=None, dpo=section)
    asked = ReferenceSpec(recipe=recipe, base=prepared.base, data=prepared.data)
    reference = build(tmp_path / "reference", lambda out: run_reference(asked, out, Silent()))
    spec = prepared.dpo(recipe=recipe, sft=None, reference=reference)
    dpo = build(tmp_path / "dpo", lambda out: run_dpo(spec, out, Silent()))
    metrics = dpo.load("metrics.json")
    assert metrics["dpo/proof_policy_gap"] <= 1
    assert "dpo/proof_sft_against_base" not in metrics


def test_the_start_up_checks_measure_the_distance_from_the_base(prepared: Run) -> None:
    """SFT at a rate of 1e-2 moves every token by a tenth of a nat and more."""
    spec = prepared.dpo()
    assert spec.recipe.dpo is not None
    pairs = read_pairs(spec.reference.file("train.parquet"))
    evidence, _ = prove_reference(spec, spec.recipe.dpo, pairs, choose_precision(spec.recipe))
    assert evidence["stored_gap"] <= 1
    assert evidence["sft_against_base"] > 0.1


def test_an_adapter_cast_by_the_trainer_is_refused(prepared: Run) -> None:
    """TRL casts the adapter of a quantized model to bfloat16: the gap at step 0 that QLoRA runs are known for."""
    policy = going_on(prepared)
    dtypes = start_checks.adapter_dtypes(policy)
    assert set(dtypes.values()) == {torch.float32}
    start_checks.check_dtypes(policy, dtypes)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    with pytest.raises(AdapterDtypeError, match=r"lora_A.* is torch\.bfloat16, .* with torch\.float32"):
        start_checks.check_dtypes(policy, dtypes)


def test_the_stage_checks_the_dtypes(prepared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = make_trainer

    def casting(*arguments: Any) -> Any:
        trainer = make(*arguments)
        for parameter in trainable_parameters(trainer.model).values():  # type: ignore[arg-type]
            parameter.data = parameter.data.bfloat16()
        return trainer

    monkeypatch.setattr(dpo_stage, "make_trainer", casting)
    with pytest.raises(AdapterDtypeError):
        run_dpo(prepared.dpo(), tmp_path, Silent())


#: Each loss where policy and reference agree, by its paper's formula with every log-ratio zero, at beta 0.25.
AT_THE_START = {
    "sigmoid": math.log(2),
    "hinge": 1.0,  # max(0, 1 - 0)
    "ipo": (1 / (2 * 0.25)) ** 2,  # (h - 1 / (2 beta))^2 with h = 0
    "robust": math.log(2),  # ((1 - e) ln 2 - e ln 2) / (1 - 2 e)
    "nca_pair": 2 * math.log(2),  # ln 2 + (ln 2 + ln 2) / 2
    "sppo_hard": 2 * (0.5 / 0.25) ** 2,  # (0 - 1 / (2 beta))^2 on both sides
    "aot": math.log(2),
    "aot_unpaired": math.log(2),
    "apo_zero": 1.0,  # 1 - 1/2 + 1/2
    "apo_down": 1.0,  # 1/2 + 1 - 1/2
}


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_start_up_checks_pass_for_every_loss(prepared: Run, tmp_path: Path, loss_type: str) -> None:
    """Row by row the policy equals the stored values; where a formula is at hand, the loss is what follows from it."""
    assert prepared.recipe.dpo is not None
    smooth = 0.1 if loss_type in {"exo_pair", "robust", "aot", "aot_unpaired"} else 0.0
    changes = {"loss_type": (loss_type,), "label_smoothing": smooth, "beta": 0.25}
    section = {**prepared.recipe.dpo.model_dump(), **changes}
    recipe = recipe_for(prepared.base, dpo=section)
    spec, precision = prepared.dpo(recipe=recipe), choose_precision(recipe)
    assert recipe.dpo is not None
    pairs = read_pairs(spec.reference.file("train.parquet"))
    tokenizer = load_tokenizer(spec.base, recipe)
    trainer: Any = make_trainer(spec, load_start(spec, recipe.dpo, precision), tokenizer, pairs, tmp_path, Silent())
    gap = start_checks.check_policy(
        pairs, lambda chunk: policy_scores(trainer, chunk, precision), precision.compute, 8, Silent(), spec.reference
    )
    assert gap <= 1
    trainer.model.eval()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, batch))
    if loss_type in AT_THE_START:
        assert loss == pytest.approx(AT_THE_START[loss_type], abs=2e-3)
    assert math.isfinite(loss)


def test_a_nan_gap_is_the_worst_gap(prepared: Run) -> None:
    comparison = start_checks.Comparison(Agreement(torch.float32))
    for source, value in (("a", 0.5), ("b", math.nan), ("c", 99.0)):
        comparison.add(source, torch.tensor([value]), [0.0])
    with pytest.raises(StoredValueError, match="of b is"):
        start_checks.check_stored(comparison, prepared.reference)


class Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers of how many positions whole vocabularies were at hand: all of a model's logits, and in float64."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary, self.float64, self.logits = vocabulary, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (self.vocabulary,):
            rows = result.numel() // self.vocabulary
            self.float64 = max(self.float64, rows if result.dtype == torch.float64 else 0)
            self.logits = max(self.logits, rows if result.dim() == 3 else 0)
        return result


@pytest.mark.parametrize("length", [1, start_checks.TILE, 2 * start_checks.TILE + 5])
def test_the_plain_way_widens_few_positions_and_projects_no_prompt(prepared: Run, length: int) -> None:
    """A long prompt's logits are never made; few of a response's are float64 at once; the sum is the formula's."""
    precision = choose_precision(prepared.recipe)
    model = base(prepared)
    vocabulary = model.config.vocab_size
    row = ([5 + i % 7 for i in range(90)], [6 + i % 11 for i in range(length)])
    with Widened(vocabulary) as seen:
        got = start_checks.independent_logprobs(model, row, precision)
    assert seen.float64 == min(length, start_checks.TILE)
    assert seen.logits == length + 1
    with torch.no_grad():
        logits = model(torch.tensor([[*row[0], *row[1]]])).logits[0, 89:-1].double()
    exact = [float(logits[t, token] - logits[t].exp().sum().log()) for t, token in enumerate(row[1])]
    assert got.tolist() == pytest.approx(exact, rel=1e-6)


def test_loading_the_sft_model_gives_its_own_log_probs(prepared: Run) -> None:
    precision = choose_precision(prepared.recipe)
    model = load_policy(prepared.base, prepared.sft.file("model"), prepared.recipe, precision)
    pairs = read_pairs(prepared.reference.file("eval.parquet"))
    comparison = start_checks.measure(
        pairs, lambda row: start_checks.independent_logprobs(model, row, precision), torch.float32
    )
    assert start_checks.check_stored(comparison, prepared.reference) <= 1
