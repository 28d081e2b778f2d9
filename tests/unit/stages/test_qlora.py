"""4-bit weights from SFT to evaluation on the CPU, with no gap between policy and reference at step 0."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flows.commands.export import LIMIT, export
from preflow.artifacts import build
from preflow.config import Recipe
from preflow.errors import ModelError
from preflow.logprobs.scored_pairs import read_pairs
from preflow.models.loading import load_policy, load_weights
from preflow.models.merge import merge
from preflow.models.precision import choose_precision
from preflow.models.resolve import resolve_model
from preflow.models.scoring import response_logprobs
from preflow.observer import Silent
from preflow.specs import EvaluateSpec, ReferenceSpec, SftSpec
from preflow.stages.dpo import run_dpo
from preflow.stages.evaluation import run_evaluation
from preflow.stages.reference import run_reference
from preflow.stages.sft import run_sft
from preflow.training.arguments import preserve_trainable_weights
from tasks.tracking.past_runs import PastRun
from tests.conftest import make_model
from tests.fixtures.prepared_run import Run
from tests.unit.support import recipe_for


@pytest.mark.slow
def test_the_chain_on_4_bit_weights(prepared: Run, tmp_path: Path) -> None:
    # bitsandbytes 0.50 packs weights for inference on the CPU in blocks of 64: narrower ones fail there.
    folder = make_model(tmp_path / "wide", width=64)
    base = resolve_model(Recipe(strategy="dpo", model_name=str(folder)), Silent())
    recipe, data = recipe_for(base, use_4bit=True), prepared.data
    asked = SftSpec(recipe=recipe, base=base, data=data)
    sft = build(tmp_path / "sft", lambda out: run_sft(asked, out, Silent()))
    assert {tensor.dtype for tensor in load_file(sft.file("model/adapter_model.safetensors")).values()} == {
        torch.float32
    }
    given = {"recipe": recipe, "base": base, "data": data, "sft": sft}
    scored = ReferenceSpec.model_validate(given)
    reference = build(tmp_path / "reference", lambda out: run_reference(scored, out, Silent()))
    spec = prepared.dpo(recipe=recipe, base=base, sft=sft, reference=reference)
    dpo = build(tmp_path / "dpo", lambda out: run_dpo(spec, out, Silent()))
    metrics = dpo.load("metrics.json")
    assert metrics["dpo/proof_policy_gap"] <= 1
    assert metrics["dpo/train_reward_margin"] > 0
    wide = load_policy(base, dpo.file("model"), recipe.model_copy(update={"use_4bit": False}), choose_precision(recipe))
    assert dpo.load("report.json")["model"]["parameters"] == sum(p.numel() for p in wide.parameters())
    last = EvaluateSpec.model_validate({**given, "dpo": dpo, "reference": reference})
    report = build(tmp_path / "evaluate", lambda out: run_evaluation(last, out, Silent())).load("evaluation.json")
    assert report["models"]["dpo"]["kl_sft"]["value"] > 0
    precision = choose_precision(recipe)
    pairs = read_pairs(reference.file("eval.parquet"))
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    run = PastRun(run_id="r", recipe=recipe, artifacts={"sft": sft, "reference": reference, "dpo": dpo})
    merge_error = export(run, tmp_path / "merged")
    assert 0 <= merge_error <= LIMIT
    plain = recipe.model_copy(update={"use_4bit": False})
    merged = load_weights(tmp_path / "merged", plain, precision)
    trained = load_policy(base, dpo.file("model"), recipe, precision)
    untrained = load_policy(base, None, recipe, precision)
    row = rows[0]
    got, expected, before = (response_logprobs(m, row, precision).sum() for m in (merged, trained, untrained))
    assert abs(float(got - expected)) <= LIMIT * len(row[1])
    assert abs(float(expected - before)) > 1, "a merge that forgot the adapter would pass"
    with pytest.raises(ModelError, match="the merged model's log-probs differ"):
        merge(base, dpo.file("model"), recipe, precision, rows, [1], tmp_path / "refused", limit=-1.0)
    assert not list(tmp_path.glob("refused*"))


def test_a_trainer_cannot_narrow_the_policy(prepared: Run) -> None:
    """TRL casts the adapter of a quantized model to bfloat16 in its constructor."""
    policy = load_policy(
        prepared.base,
        prepared.sft.file("model"),
        prepared.recipe,
        choose_precision(prepared.recipe),
        trainable=True,
    )
    before = {name: p.clone() for name, p in policy.named_parameters() if p.requires_grad}
    with preserve_trainable_weights(policy):
        for parameter in policy.parameters():
            parameter.data = parameter.data.bfloat16()
    assert before
    for name, parameter in policy.named_parameters():
        if name in before:
            assert parameter.equal(before[name]), name
