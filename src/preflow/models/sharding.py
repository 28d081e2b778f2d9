"""Sharded weights: gathered to full weights, and put back.

FSDP 2 turns parameters into DTensors of which each process holds a part; DeepSpeed's ZeRO 3 leaves empty parameters
behind and gathers them around each layer. Every function here is for all processes to call together, at the same
place: each of them gives its part. The whole values come to process 0 alone, on the CPU, so no device holds them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial

from preflow.distributed import is_rank0
from preflow.models.loading import LanguageModel


def is_sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of a model's weights."""
    return _in_fsdp(model) or _in_zero(model)


def is_whole(weight: Tensor) -> bool:
    """Whether a weight can be used in arithmetic as it is, outside the layer that owns it."""
    return not isinstance(weight, DTensor) and not in_zero(weight)


def in_zero(weight: Tensor | None) -> bool:
    """Whether ZeRO 3 has taken a weight over."""
    return hasattr(weight, "ds_id")


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def in_whole(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A weight that its own layer's forward does not gather: the whole of it, for arithmetic in ``dtype``.

    Its gradient is the mean over the processes, as FSDP's own are: each process has other rows. (DTensor's default
    takes the gradients of all processes for equal, and keeps this process's alone.)
    """
    if not isinstance(weight, DTensor):
        return weight
    means = [Partial("avg") for _ in range(weight.device_mesh.ndim)]
    whole: Tensor = weight.full_tensor(grad_placements=means)
    return whole.to(dtype)


def full_weights(model: LanguageModel) -> dict[str, Tensor]:
    """All that a model saves, under the names of its state dict: with an adapter, what trains.

    Returns:
        On process 0 the values, on the CPU; elsewhere nothing.
    """
    from peft import PeftModel

    trained = isinstance(model, PeftModel)
    if _in_zero(model):
        return _gathered(model, trained=trained)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    # A tied weight comes under both of its names; it is saved under the first, as from one process.
    again = dict(model.named_parameters(remove_duplicate=False)).keys() - dict(model.named_parameters()).keys()
    return {name: value for name, value in weights.items() if name not in again}


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter that trains, whole, by name; sharded or not.

    Returns:
        On process 0 the values, on the CPU; elsewhere nothing.
    """
    trains = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    weights: dict[str, Tensor] = full_weights(model) if is_sharded(model) else dict(model.named_parameters())
    return {name: weights[name].detach().cpu().contiguous() for name in trains} if is_rank0() else {}


def put_back(model: nn.Module, file: Path) -> None:
    """Give parameters the values that ``trained_weights`` gave.

    Args:
        model: Where they belong.
        file: Safetensors that hold them; under FSDP process 0 alone reads it.
    """
    if _in_fsdp(model):
        weights: dict[str, Any] = load_file(file) if is_rank0() else {}
        for module in model.modules():  # a forward without a backward leaves some of them whole
            if isinstance(module, FSDPModule):
                module.reshard()
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(model, weights, options=options)
        return
    first = not is_sharded(model) or is_rank0()
    with torch.no_grad(), safe_open(file, "pt") as kept:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                value = kept.get_tensor(name)
                _set_master(parameter, value)
                with _gathering(parameter):
                    if first:
                        parameter.copy_(value)


def _in_fsdp(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def _in_zero(model: nn.Module) -> bool:
    return any(in_zero(parameter) for parameter in model.parameters())


@contextmanager
def _gathering(parameter: nn.Parameter) -> Iterator[None]:
    """Whole within, where ZeRO 3 has it in parts; what process 0 changes stays."""
    if not in_zero(parameter):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


def _set_master(parameter: nn.Parameter, value: Tensor) -> None:
    """Give this process's part of the optimizer's float32 copy of a weight under ZeRO 3 its value."""
    if not in_zero(parameter):
        return
    from deepspeed.utils import safe_get_local_fp32_param, safe_set_local_fp32_param

    part = torch.zeros_like(safe_get_local_fp32_param(parameter))  # the last part ends in padding
    mine = value.flatten()[dist.get_rank() * part.numel() :][: part.numel()]
    part.view(-1)[: mine.numel()] = mine.to(part)
    safe_set_local_fp32_param(parameter, part)


def _gathered(model: nn.Module, *, trained: bool) -> dict[str, Tensor]:
    """One parameter at a time, so that no device holds more than its part and one parameter more.

    What trains is read from the optimizer's float32 copy: under bf16 the model's own weights are bfloat16, in which
    small updates vanish.

    Args:
        model: Under ZeRO 3.
        trained: Only what trains.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    first = is_rank0()
    named = dict(model.named_parameters(remove_duplicate=False))
    values = {name: buffer.cpu() for name, buffer in model.state_dict().items() if first and name not in named}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = safe_get_full_fp32_param(parameter)
            values |= {name: value.cpu()} if first else {}
        elif not trained:
            with _gathering(parameter):
                values |= {name: parameter.detach().cpu().clone()} if first else {}
    return values
