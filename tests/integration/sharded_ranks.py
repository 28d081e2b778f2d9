"""A process of a launch whose weights are sharded over CPUs: run as a module in place of ``preflow.stages.launched``.

torch's FSDP 2 runs on CPUs with gloo; accelerate alone takes it for GPUs only. Told otherwise, all else is as shipped.
"""

import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

_own = AcceleratorState.__init__


def _with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _own(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]
    from preflow.stages import launched

    launched.main(*sys.argv[1:])
