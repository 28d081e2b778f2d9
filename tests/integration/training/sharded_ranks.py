"""A rank whose weights are sharded over CPUs: run as a module in place of ``preflow.stages.worker``.

torch's FSDP 2 and DeepSpeed's ZeRO 3 run on CPUs with gloo; accelerate alone takes them for GPUs only. Told otherwise,
all else is as shipped.
"""

import math
import os
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

_own = AcceleratorState.__init__


def _sharding(
    self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, deepspeed_plugin: Any = None, **kwargs: Any
) -> None:
    _own(self, *args, fsdp_plugin=fsdp_plugin, deepspeed_plugin=deepspeed_plugin, **kwargs)
    plugin = fsdp_plugin or deepspeed_plugin
    if plugin is None:
        return
    kind = DistributedType.FSDP if fsdp_plugin is not None else DistributedType.DEEPSPEED
    self.distributed_type = PartialState._shared_state["distributed_type"] = kind
    if self._mixed_precision != "no" or kind == DistributedType.DEEPSPEED:
        plugin.set_mixed_precision(self._mixed_precision)
    if kind == DistributedType.FSDP:
        self.fsdp_plugin = plugin
    else:
        plugin.select(_from_accelerator_state=True)
        self.deepspeed_plugins = plugin


def _break_row(number: int) -> None:
    """Let the loss of every batch that holds a row of the training data be NaN."""
    from trl.trainer.sft_trainer import SFTTrainer

    compute: Any = SFTTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        bad = self.train_dataset[number]["input_ids"]
        here = any(line[: len(bad)] == bad for line in inputs["input_ids"].tolist())
        loss = compute(self, model, inputs, *args, **kwargs)
        return loss * math.nan if here else loss

    SFTTrainer.compute_loss = broken  # type: ignore[method-assign]


if __name__ == "__main__":
    AcceleratorState.__init__ = _sharding
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    if "BREAK_ROW" in os.environ:
        _break_row(int(os.environ["BREAK_ROW"]))
    import trl.trainer.dpo_trainer as trl_dpo

    from preflow.stages import worker

    del vars(trl_dpo)["create_model_from_path"]  # no second model may be loaded for stored values
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "true"  # as a configuration of the user's own may say

    worker.main(*sys.argv[1:])
