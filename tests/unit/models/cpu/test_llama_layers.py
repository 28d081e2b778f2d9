"""Layers for training on the CPU give the plain modules' values and gradients, and leave alone what they cannot."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from itertools import product
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from preflow.models.cpu import llama_layers, lora_linear
from preflow.models.cpu.llama_layers import use_cpu_kernels
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.cpu.rotary_attention import rotary_attention
from preflow.models.heap import freed_memory_kept
from preflow.models.packed.layout import Layout, in_one_row
from tests.unit.models.architectures import CONFIGS

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "phi3")
CPU = torch.device("cpu")
#: A prompt with two responses, one whose prompt is a single token, one response of one token.
ROW = in_one_row([([5, 6, 7, 8], [[9, 10], [11, 4, 4]]), ([5], [[6, 7, 8], [6]])], CPU)

#: Prompts with a shared prefix, one of which is no longer than it.
ALIKE = in_one_row(
    [([5, 6, 7, 8], [[9, 10], [11, 4]]), ([5, 6, 4], [[6], [8, 6]]), ([5, 6], [[6], [6]])], CPU, share=True
)
#: Two demonstrations, as SFT lays them out.
SEQUENCES = Layout([[4], [3]], torch.zeros(7, dtype=torch.long), torch.tensor([0, 1, 2, 3, 0, 1, 2]))
#: The same with two tokens in common, as long as the first of three.
ALIKE_SEQUENCES = Layout([[0], [3], [1]], torch.zeros(6, dtype=torch.long), torch.tensor([0, 1, 2, 3, 4, 2]), common=2)
#: An empty first prompt after a shared prefix, three responses, a prompt of its own with one response of one token.
MANY = in_one_row(
    [([5, 6, 7], [[9, 10], [11], [4, 4, 4]]), ([5, 6, 4, 3], [[6]]), ([5, 6, 8], [[7, 7], [3]])], CPU, share=True
)


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def layer(narrow: int, wide: int, rank: int, bias: bool = False) -> list[Any]:
    """Weight, bias, a and b as autograd functions take them; the first two are frozen."""
    frozen = [double(wide, narrow).detach(), double(wide).detach() if bias else None]
    return [*frozen, double(rank, narrow), double(wide, rank)]


def test_gradients_are_those_of_the_formulas() -> None:
    """Against differences in float64; ranks and widths are odd, and differ between layers."""
    torch.manual_seed(0)
    function: Any = llama_layers._RmsNorm.apply
    assert torch.autograd.gradcheck(lambda x: function(x, double(7).detach() * 0 + 1.5, 1e-3), double(5, 7))
    three = [*layer(5, 7, 2, bias=True), *layer(5, 3, 3), *layer(5, 4, 1)]
    function = lora_linear._LoraLinears.apply
    assert torch.autograd.gradcheck(lambda x, *flat: function(x, [0.5, 2.0, 1.0], True, *flat), (double(6, 5), *three))
    gated = [*layer(5, 7, 2), *layer(5, 7, 3, bias=True), *layer(7, 5, 1)]
    function = llama_layers._GatedMlp.apply
    assert torch.autograd.gradcheck(lambda x, *flat: function(x, [0.5, 2.0, 1.0], *flat), (double(6, 5), *gated))


@pytest.mark.parametrize("layout", [ROW.layout, ALIKE.layout, SEQUENCES, ALIKE_SEQUENCES, MANY.layout])
def test_attention_is_rotation_then_masked_softmax(layout: Layout) -> None:
    """Against the formula over the whole row with one dense mask, in float64, with heads that share their keys."""
    torch.manual_seed(0)
    count = layout.common + sum(layout.lengths)
    given = double(count, 6, 8), double(count, 2, 8), double(count, 2, 8)
    angles = torch.randn(count, 4, dtype=torch.float64).repeat(1, 2)
    cos, sin = angles.cos(), angles.sin()
    got = rotary_attention(*given, cos, sin, layout, 0.3)

    q, k, v = (t.transpose(0, 1)[None] for t in given)
    q, k = apply_rotary_pos_emb(q, k, cos[None], sin[None])
    k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
    visible = torch.zeros(count, count)
    for query_place, key_place in product(range(count), repeat=2):
        visible[query_place, key_place] = layout.blocks(None).mask_mod(0, 0, query_place, key_place)
    expected = torch.softmax((q @ k.transpose(2, 3) * 0.3).masked_fill(visible == 0, -torch.inf), -1) @ v
    expected = expected[0].transpose(0, 1)
    assert torch.allclose(got, expected, atol=1e-12)
    weights = torch.randn_like(got)
    for a, b in zip(*(torch.autograd.grad((out * weights).sum(), given) for out in (got, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_norms_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    for shape in ((3, 32), (1, 5, 32), (1, 4, 2, 32), (0, 32)):
        plain = LlamaRMSNorm(32, eps=1e-5).requires_grad_(False)
        plain.weight.normal_()
        x = torch.randn(shape, requires_grad=True)
        expected = plain(x)
        use_cpu_kernels(plain)
        got = plain(x)
        assert torch.allclose(got, expected, rtol=1e-6, atol=1e-6)
        weights = torch.randn(shape)
        (a,), (b,) = (torch.autograd.grad((out * weights).sum(), x) for out in (got, expected))
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
        assert torch.equal(plain.requires_grad_()(x), expected), "a norm that trains keeps its own way"


def adapted(architecture: str, start: bool = False, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """A tiny model with an adapter, fused; ``start`` leaves b at zero."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[architecture]), dtype=dtype)  # type: ignore[no-untyped-call]
    chosen = {"r": 4, "target_modules": "all-linear", **options}
    wrapped: Any = get_peft_model(model.requires_grad_(False), LoraConfig(**chosen), autocast_adapter_dtype=False)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name and not start:
            parameter.data.normal_(std=0.1)
    fuse_lora(wrapped)
    return wrapped


def outputs(model: Any, cache: bool = False) -> torch.Tensor:
    """Last hidden states of a row, after a backward through a weighted sum of them."""
    from preflow.models.adapters import inner_model
    from preflow.models.packed.attention import no_mask, register_packed_attention

    inner = inner_model(model)
    register_packed_attention(inner)
    model.zero_grad()
    given = {"input_ids": ROW.input_ids, "position_ids": ROW.position_ids, "attention_mask": no_mask(CPU)}
    states: torch.Tensor = inner.base_model(**given, layout=ROW.layout, use_cache=cache).last_hidden_state
    if states.requires_grad:
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()  # type: ignore[no-untyped-call]
    return states


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("some", [None, ["q_proj", "up_proj", "qkv_proj"]])
@pytest.mark.parametrize("one_dnn", [True, False])
def test_models_are_the_same(
    architecture: str, some: list[str] | None, one_dnn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an adapter on every matrix, and on some of those that share their input; by either library."""
    monkeypatch.setattr(lora_linear, "_one_dnn_is_faster", lambda: one_dnn)
    model = adapted(architecture, target_modules=some or "all-linear")
    expected, gradients = outputs(model), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    use_cpu_kernels(model)
    got = outputs(model)
    assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys() != set()
    for name, gradient in gradients.items():
        assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()), name


def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the fast functions, as they are called."""
    names: list[str] = []

    def noted(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            names.append(name)
            return function(*arguments)

        return call

    for name in ("_RmsNorm", "_GatedMlp"):
        function = getattr(llama_layers, name)
        monkeypatch.setattr(function, "apply", noted(name, function.apply))
    for name, function in (("lora_linears", lora_linear.lora_linears), ("rotary_attention", rotary_attention)):
        monkeypatch.setattr(f"preflow.models.cpu.llama_layers.{name}", noted(name, function))
    return names


ALL = {"_RmsNorm", "_GatedMlp", "lora_linears", "rotary_attention"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ALL),
        ({"lora_dropout": 0.5}, {"_RmsNorm", "rotary_attention"}),
        ({"use_dora": True}, {"_RmsNorm", "rotary_attention"}),
        ({"target_modules": ["q_proj", "down_proj"]}, {"_RmsNorm", "rotary_attention"}),
        ({"dtype": torch.bfloat16}, set()),
        ({"dtype": torch.float64}, set()),
    ],
)
def test_what_is_not_known_keeps_its_own_way(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: set[str]
) -> None:
    model, names = adapted("llama", **change).train(), used(monkeypatch)
    torch.manual_seed(1)
    plain = outputs(model)
    assert not names
    use_cpu_kernels(model)
    torch.manual_seed(1)
    got = outputs(model)
    assert set(names) == expected
    assert torch.equal(got, plain) or expected


def test_settings_of_a_call_decide_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast, dropped attention, a cache and a row longer than the window take the plain way."""
    model, names = adapted("llama"), used(monkeypatch)
    use_cpu_kernels(model)
    with torch.autocast("cpu", torch.bfloat16):
        outputs(model)
    assert not names
    for layer_ in model.base_model.model.model.layers:
        layer_.self_attn.attention_dropout = 0.5
    outputs(model.train())
    assert set(names) == {"_RmsNorm", "_GatedMlp"}
    names.clear()
    outputs(model.eval())
    assert set(names) == ALL
    names.clear()
    outputs(model, cache=True)
    assert "rotary_attention" not in names
    windowed = adapted("mistral")
    use_cpu_kernels(windowed)
    names.clear()
    outputs(windowed)  # groups of 8 and 4 tokens, a window of 5
    assert "rotary_attention" not in names
    windowed.base_model.model.config.sliding_window = 8
    expected = outputs(adapted("mistral"))
    assert not torch.allclose(outputs(windowed), expected, atol=1e-4), "the window of 5 hides something"
    assert "rotary_attention" in names


def test_a_fresh_adapter_changes_no_bit_of_an_mlp() -> None:
    """On one thread: several split oneDNN's products otherwise than the plain ones, with other last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _same_bits()
    finally:
        torch.set_num_threads(threads)


def _same_bits() -> None:
    model = adapted("llama", start=True)
    mlp = model.base_model.model.model.layers[0].mlp
    x = torch.randn(1, 9, 32)
    expected = mlp(x)
    use_cpu_kernels(model)
    assert torch.equal(mlp(x), expected)


def test_checkpointed_layers_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = adapted("qwen3")
        use_cpu_kernels(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        outputs(model.train())
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_and_then_handed_back() -> None:
    """In a process of its own: what other tests freed would be there to be taken."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        apart, kept, after = pool.submit(page_faults).result()
    assert kept < 2_000
    assert min(apart, after) > 10_000


def page_faults() -> tuple[int, int, int]:
    """Those of making four tensors of 64 MiB: before memory is kept, while it is, and after."""

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.ones(2**24)  # 64 MiB, or 16,384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    apart = faults()
    with freed_memory_kept(CPU):
        kept = min(faults() for _ in range(3))
    return apart, kept, faults()
