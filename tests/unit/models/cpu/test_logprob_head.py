"""Log-probs under the head: the plain formulas, tile by tile, and exact for large vocabularies."""

import pytest
import torch

from preflow.models.cpu import logprob_head


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_head_gives_the_formulas_in_every_tile(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, bias: bool
) -> None:
    """11 tokens in tiles of at most 4, far logits included: values and gradient by plain formulas in float64."""
    monkeypatch.setattr(logprob_head, "_TILE", 4)
    torch.manual_seed(0)
    hidden, weight = torch.randn(11, 8, requires_grad=True), torch.randn(50, 8) * 3
    shift, targets = (torch.randn(50) if bias else None), torch.randint(50, (11,))
    got = logprob_head.score(hidden, weight, shift, targets, softcap, wpo=True)
    logits = hidden.double() @ weight.double().t() + (0 if shift is None else shift.double())
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    logps = torch.log_softmax(logits, -1)
    expected = logps.gather(-1, targets[:, None])[:, 0]
    assert torch.allclose(got.log_probs.double(), expected, atol=2e-5)
    assert torch.allclose(got.entropy.double(), -(logps.exp() * logps).sum(-1), atol=2e-5)
    assert torch.allclose(got.mean_logits.double(), logits.mean(-1), atol=1e-5)
    assert got.log_sum_sq_probs is not None
    assert torch.allclose(got.log_sum_sq_probs.double(), (2 * logps).exp().sum(-1).log(), atol=2e-5)
    assert got.is_top1.equal(logits.argmax(-1) == targets)
    weights = torch.randn(11)
    (a,) = torch.autograd.grad((got.log_probs * weights).sum(), hidden)
    (b,) = torch.autograd.grad((expected * weights).sum(), hidden)
    assert torch.allclose(a, b, atol=1e-4)
    with torch.no_grad():
        again = logprob_head.score(hidden, weight, shift, targets, softcap, wpo=False)
    assert torch.allclose(again.log_probs, got.log_probs, atol=1e-5)
    assert torch.allclose(again.entropy, got.entropy, atol=2e-5)


@pytest.mark.parametrize("train", [False, True])
def test_small_probabilities_beside_a_large_one_are_not_lost_in_a_large_vocabulary(train: bool) -> None:
    """One logit of 17 beside 262,143 of about 0: log p of the first is -log(1 + 262,143 e^-17), by float64.

    PyTorch's float32 softmax is off by some 1e-3 nats here, twice the limit of the checks before DPO.
    """
    torch.manual_seed(0)
    logits = torch.randn(262_144) * 0.1
    logits[5] = 17.0
    targets = torch.tensor([5, 77])
    hidden = torch.ones(2, 1, requires_grad=train)
    got = logprob_head.score(hidden, logits[:, None], None, targets, None, wpo=True)
    exact = torch.log_softmax(logits.double(), -1)
    assert (got.log_probs.double() - exact[targets]).abs().max() < 4e-6  # two roundings of numbers near 17
    assert got.entropy[0].item() == pytest.approx(-(exact.exp() * exact).sum().item(), abs=4e-5)
    assert got.log_sum_sq_probs is not None
    assert got.log_sum_sq_probs[0].item() == pytest.approx((2 * exact).exp().sum().log().item(), abs=4e-6)
    if train:
        (slope,) = torch.autograd.grad(got.log_probs[0], hidden)
        expected = 17.0 - (exact.exp() * logits.double()).sum().item()
        assert slope[0].item() == pytest.approx(expected, abs=4e-5)
