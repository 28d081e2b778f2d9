"""Two processes: a head whose weight only its own module gathers, though the packed forward never calls that module."""

import os
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from preflow.models.trl_forward import pack_pairs

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def model_with(*, train_head: bool) -> LlamaForCausalLM:
    """The same random model in both processes."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.3, tie_word_embeddings=False))
    model.lm_head.requires_grad_(train_head)
    pack_pairs(model)
    return model


def gradients(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """Of the log-probs of two pairs of this process's own: prompts of three tokens, responses of four."""
    torch.manual_seed(10 + dist.get_rank())
    prompts, responses = torch.randint(1, 50, (2, 3)).repeat(2, 1), torch.randint(1, 50, (4, 4))
    ids = torch.cat((prompts, responses), dim=1)
    labels = ids.clone()
    labels[:, :3] = -100
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
    (output.log_probs * torch.linspace(-1, 2, output.log_probs.numel()).view_as(output.log_probs)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main() -> None:
    """Gradients of the sharded model are the means of both processes' own."""
    dist.init_process_group("gloo")
    for train_head in (True, False):
        expected = gradients(model_with(train_head=train_head))
        for grad in expected.values():
            dist.all_reduce(grad)
        model = model_with(train_head=train_head)
        for module in (*model.model.layers, model.lm_head, model):
            fully_shard(module)
        got = gradients(model)
        assert got.keys() == expected.keys()
        assert ("lm_head.weight" in got) == train_head
        for name, grad in got.items():
            assert torch.allclose(grad.full_tensor(), expected[name] / 2, rtol=1e-4, atol=1e-6), name  # type: ignore[attr-defined]
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
