"""Which weights DPO starts from, proven by digests: those of the reference's files, and those of its tensors.

Digests see a single changed bit, where log-probs see no change that is as small as rounding
(``preflow.maths.agreement``). Two comparisons lead from the stored values to the policy:

1. the values' identity names the files of the weights that DPO loads, and their precision (``check_identity``);
2. the policy holds, in its trainer, the numbers that loading these files gave (``check_policy_weights``).

That these numbers compute what was stored is for ``start_checks`` to show.
"""

import hashlib
from collections.abc import Iterator, Mapping

import torch

from preflow.artifacts import Artifact
from preflow.errors import PolicyMismatchError, StoredValueError
from preflow.logprobs.identity import ReferenceIdentity
from preflow.logprobs.store import STORE_FILE

#: What PEFT puts around the names of a plain model's weights.
_WRAPPERS = ("base_model.model.", ".base_layer")
#: Numbers that are widened and digested at once.
_TILE = 1 << 22


def check_identity(reference: Artifact, identity: ReferenceIdentity, precision: str) -> None:
    """The stored values were computed with the weights that DPO is about to load, in its precision.

    Args:
        reference: The reference stage's artifact; one that was not made from the store names no weights.
        identity: Of the model that DPO loads as its reference.
        precision: DPO's, as ``Precision.label`` gives it; the first three parts, device and dtypes, are compared.

    Raises:
        StoredValueError: Names what differs.
    """
    made = reference.load(STORE_FILE) if reference.file(STORE_FILE).is_file() else {}
    weights: Mapping[str, str] = identity.values["weights"]
    for part in sorted(made.get("weights", weights).keys() | weights.keys()):
        then, now = made.get("weights", weights).get(part), weights.get(part)
        if then != now:
            raise StoredValueError(
                f"the stored reference log-probs in {reference.path} were computed with {_named(part, then)}, DPO "
                f"loads {_named(part, now)}: they are another model's. Delete that artifact and run again, so that "
                "they are computed with the weights that DPO starts from"
            )
    computed, computes = ("/".join(label.split("/")[:3]) for label in (made.get("precision", precision), precision))
    if computed != computes:
        raise StoredValueError(
            f"the stored reference log-probs in {reference.path} were computed in {computed}, DPO computes in "
            f"{computes} (device, weights, forward): policy and reference would differ before the first step. "
            "Delete that artifact and run again"
        )


def _named(part: str, digest: str | None) -> str:
    return f"no {part} weights" if digest is None else f"{part} weights of digest {digest[:12]}"


@torch.no_grad()
def weight_digests(model: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of the numbers of every weight that a model holds, by its name in the plain model.

    To be taken before the first forward: bitsandbytes lays weights out anew then. A 16-bit number and its float32
    equal count as the same, since trainers widen what they like. Under ZeRO 3 each process digests its own part.
    """
    digests: dict[str, str] = {}
    done: dict[int, str] = {}  # a tied weight has two names
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, torch.Tensor):
            digest = done.get(id(value)) or _digest(getattr(value, "ds_tensor", value))
            digests[_plain(name)] = done[id(value)] = digest
    return digests


def _digest(weight: torch.Tensor) -> str:
    digest = hashlib.sha256(str(tuple(weight.shape)).encode())
    for tile in _tiles(weight):
        digest.update(tile.numpy().tobytes())
    return digest.hexdigest()


def _tiles(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    narrow = weight.dtype in (torch.bfloat16, torch.float16)
    for tile in weight.detach().reshape(-1).split(_TILE):  # type: ignore[no-untyped-call]
        yield tile.cpu().to(torch.float32 if narrow else tile.dtype).contiguous().view(torch.uint8)


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def check_policy_weights(policy: torch.nn.Module, reference: Mapping[str, str]) -> int:
    """The policy holds the reference's weights, number by number, and beside them at most an adapter that adds nothing.

    Args:
        policy: The model that the trainer holds, before its first forward.
        reference: ``weight_digests`` of the model whose log-probs were compared with the stored ones.

    Returns:
        How many weights were compared.

    Raises:
        PolicyMismatchError: Names the first weight that differs.
    """
    digests = weight_digests(policy)
    changed = [name for name in reference if digests.get(name) != reference[name]]
    state = {_plain(name): value for name, value in policy.state_dict().items()}
    added = [name for name in digests if name not in reference and ".lora_B." in name]
    changed += [
        name for name in added if bool(state[name].any()) and bool(state[name.replace("lora_B", "lora_A")].any())
    ]
    if changed:
        raise PolicyMismatchError(
            f"{len(changed)} of the policy's weights differ from the reference's, the first of them {changed[0]}: the "
            "policy does not start from the reference, mostly because the SFT adapter was overwritten by a new "
            "one. Start DPO from the SFT artifact itself, and change no weight before the first step"
        )
    return len(reference)
