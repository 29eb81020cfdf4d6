"""Weights of torch modules in memory: read directly, or written as a checkpoint.

Neither needs a pickle::

    unet = load_module(partial(UNet, config), weights_of(torch_unet))  # without a file
    save_checkpoint(torch_unet, Path("model/unet"))  # a folder that dslo_jax reads
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import save_file

from dslo_jax.files import atomic_file, write_json
from torch_bridge.arrays import BridgeError


class TorchWeights(Mapping[str, np.ndarray]):
    """The tensors of a state dict as NumPy arrays, copied one at a time on demand.

    Args:
        tensors: Tensors by their keys, on any device.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = dict(tensors)

    def __getitem__(self, key: str) -> np.ndarray:
        # A copy, because JAX may use the memory it is given, while PyTorch may continue
        # to train the tensor.
        tensor = plain_tensor(key, self._tensors[key]).cpu()
        if tensor.dtype is torch.bfloat16:  # NumPy has no bfloat16 of its own
            return tensor.view(torch.uint16).numpy().view(jnp.bfloat16.dtype)
        return tensor.numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def weights_of(module: torch.nn.Module | Mapping[str, torch.Tensor]) -> TorchWeights:
    """The weights of a module in memory, for ``dslo_jax.weights.load_module``.

    Args:
        module: A module of transformers, diffusers or your own, or a state dict. Its
            keys must be those of the network's checkpoint format.

    Returns:
        A mapping from tensor key to array that copies on demand.

    Raises:
        BridgeError: An entry is not a plain tensor (``B01``).
    """
    return TorchWeights(state_of(module))


def save_checkpoint(
    module: torch.nn.Module | Mapping[str, torch.Tensor],
    folder: Path | str,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a module in memory as a checkpoint folder that ``dslo_jax`` reads.

    For modules of transformers and diffusers, ``save_pretrained`` of the module is
    called, because it knows which tensors are tied, and their keys in files.

    Args:
        module: A module or a state dict.
        folder: Folder to write; created when missing.
        config: The Hugging Face configuration, for a plain module or a state dict.

    Returns:
        The folder.

    Raises:
        BridgeError: The configuration is missing or given twice (``B06``), or an entry
            is not a plain tensor (``B01``).
    """
    folder = Path(folder)
    writes_itself = hasattr(module, "save_pretrained")
    if writes_itself == (config is not None):
        raise BridgeError(
            "B06",
            f"{type(module).__name__} has a configuration of its own; drop config"
            if writes_itself
            else f"{type(module).__name__} has no configuration; pass config=",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if config is None:
        cast(Any, module).save_pretrained(folder)
        return folder
    stem = "diffusion_pytorch_model" if "_class_name" in config else "model"
    write_safetensors(state_of(module), folder / f"{stem}.safetensors")
    write_json(folder / "config.json", config)
    return folder


def state_of(
    module: torch.nn.Module | Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """The state dict of a module, or the given one, as a plain dictionary."""
    return dict(module.state_dict() if isinstance(module, torch.nn.Module) else module)


def plain_tensor(key: str, value: object) -> torch.Tensor:
    """A contiguous copy of one entry that shares no memory with any other.

    Raises:
        BridgeError: It is not a dense tensor with values (``B01``).
    """
    if not isinstance(value, torch.Tensor):
        raise BridgeError("B01", f"{key} is {type(value).__name__}, expected a tensor")
    if value.is_meta or value.is_quantized or value.layout is not torch.strided:
        raise BridgeError(
            "B01",
            f"{key} is a {value.dtype} tensor of layout {value.layout} on "
            f"{value.device}, expected a dense tensor with values",
        )
    return value.detach().clone(memory_format=torch.contiguous_format)


def write_safetensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors to one file, whole or not at all.

    Tied tensors are written once per name, because the format cannot share them.
    """
    copies = {key: plain_tensor(key, value).cpu() for key, value in tensors.items()}
    with atomic_file(path) as file:
        save_file(copies, file.name, metadata={"format": "pt"})
