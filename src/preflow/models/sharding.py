"""Weights that several processes share out among them: read whole, and put back.

FSDP 2 turns parameters into DTensors of which each process holds a part; DeepSpeed's ZeRO 3 leaves empty parameters
behind and gathers them around each layer. Every function here is for all processes to call together, at the same
place: each of them gives its part. The whole values come to process 0 alone, on the CPU, so no device holds them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial

from preflow.models.loading import LanguageModel


def is_first() -> bool:
    """Whether this process writes the files: process 0 of a launch, or the only one."""
    return not dist.is_initialized() or dist.get_rank() == 0


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


def whole_weights(model: LanguageModel) -> dict[str, Tensor]:
    """All that a model saves, under the names of its state dict: with an adapter, what trains.

    Returns:
        On process 0 the values, on the CPU; elsewhere nothing.
    """
    from peft import PeftModel

    trained = isinstance(model, PeftModel)
    if _in_zero(model):
        return _gathered(model)
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
    weights: dict[str, Tensor] = whole_weights(model) if is_sharded(model) else dict(model.named_parameters())
    return {name: weights[name].detach().cpu().contiguous() for name in trains} if is_first() else {}


def put_back(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give parameters the values that ``trained_weights`` gave; where they are sharded, process 0's count."""
    if _in_fsdp(model):
        for module in model.modules():  # a forward without a backward leaves some of them whole
            if isinstance(module, FSDPModule):
                module.reshard()
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(model, dict(weights), options=options)
        return
    first = not is_sharded(model) or is_first()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                with _gathering(parameter):
                    if first:
                        parameter.copy_(weights[name])


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


def _gathered(model: nn.Module) -> dict[str, Tensor]:
    """One parameter at a time, so that no device holds more than its part and one parameter more."""
    first = is_first()
    named = dict(model.named_parameters(remove_duplicate=False))
    values = {name: buffer.cpu() for name, buffer in model.state_dict().items() if first and name not in named}
    for name, parameter in model.named_parameters():
        with _gathering(parameter):
            if first:
                values[name] = parameter.detach().cpu().clone()
    return values
