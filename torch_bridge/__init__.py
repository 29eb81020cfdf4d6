"""For people who live in PyTorch: arrays, weights, and the method as a torch reference.

Importing this package imports torch, not transformers or diffusers.
``torch_bridge.reference`` is imported by name: ``from torch_bridge import reference``.
"""

from torch_bridge.arrays import (
    BridgeError as BridgeError,
    to_jax as to_jax,
    to_torch as to_torch,
)
from torch_bridge.weights import (
    save_checkpoint as save_checkpoint,
    weights_of as weights_of,
)
