"""Tools for people who use PyTorch: arrays, weights, and the method for their tensors.

The first use of a name below imports torch, but neither transformers nor diffusers.
``torch_bridge.reference`` is imported by name: ``from torch_bridge import reference``.
``torch_bridge.convert`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from torch_bridge.arrays import (
        BridgeError as BridgeError,
        to_jax as to_jax,
        to_torch as to_torch,
    )
    from torch_bridge.head import DSLOHead as DSLOHead, HeadOutput as HeadOutput
    from torch_bridge.weights import (
        save_checkpoint as save_checkpoint,
        weights_of as weights_of,
    )

_HOMES = {
    **dict.fromkeys(("BridgeError", "to_jax", "to_torch"), "arrays"),
    **dict.fromkeys(("DSLOHead", "HeadOutput"), "head"),
    **dict.fromkeys(("save_checkpoint", "weights_of"), "weights"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
