"""Flax NNX modules filled from tensors in the layout of Hugging Face, and saved in it.

Modules name their attributes as the checkpoint names its tensors, so the path of a
parameter is its key. Only the layout of some parameters differs:

====================  ===========  ==========================================
NNX leaf              file         layout in the file
====================  ===========  ==========================================
``kernel`` (2-d)      ``weight``   transposed, or a 1 x 1 convolution
``kernel`` (4-d)      ``weight``   output, input, height, width
``scale``             ``weight``   as it is
``embedding``         ``weight``   as it is
anything else         same name    as it is
====================  ===========  ==========================================
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from dslo_jax.errors import CheckpointError
from dslo_jax.files import atomic_file, write_json


Module = TypeVar("Module", bound=nnx.Module)

_MAX_FAULTS_SHOWN = 12


class OneKey(nnx.Rngs):
    """Random keys for abstract modules: every parameter gets the same key.

    ``nnx.Rngs`` counts its keys in a variable. When it is traced, the time for each key
    grows with the number of keys before it, to seconds for the UNet of Stable
    Diffusion.
    """

    def __init__(self):
        super().__init__(0)

    def params(self) -> jax.Array:
        """The key."""
        return self.default.key[...]


class _Fault(NamedTuple):
    """Reason why a tensor of the file does not fit the network."""

    code: str
    text: str


def load_module(
    build: Callable[..., Module],
    weights: Mapping[str, np.ndarray],
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
    rename: Callable[[str], str] = lambda key: key,
    ignored: Iterable[str] = (),
) -> Module:
    """Build a module and fill all its parameters from a checkpoint.

    The module is built abstractly, so that no parameter is initialised at random.
    Missing and unknown tensors are checked, and all faults are reported in one error.

    Args:
        build: Makes the module from its argument ``rngs``, under ``nnx.eval_shape``.
        weights: Arrays by tensor key. A CPU device may use their memory, so they must
            not be changed afterwards.
        dtype: Type of floating parameters; others keep the type that the module gives
            them.
        device: Device of the parameters; the default device when ``None``.
        rename: Maps a key of the file to the key of the module.
        ignored: Regular expressions of keys in the file that the module does not need;
            the whole renamed key must match.

    Returns:
        The module with all its parameters.

    Raises:
        CheckpointError: A key is missing, unused or used twice, a shape or kind of
            number differs (``W04``), or a tensor holds NaN or infinity, in the file
            or after the conversion to ``dtype`` (``W07``).

    Memory:
        The parameters, and less than three more tensors on the host.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build(rngs=OneKey())))
    wanted = dict(nnx.to_flat_state(state))
    names, faults = _match_keys(weights, wanted, rename, tuple(ignored))
    leaves = []
    for path, name in names.items():
        variable = wanted[path]
        leaf = _as_leaf(name, weights[name], path, variable.get_value(), dtype, device)
        if isinstance(leaf, _Fault):
            faults.append(leaf)
        else:
            leaves.append((path, variable.replace(leaf)))
    if faults:
        raise _misfit(faults)
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def save_module(
    module: nnx.Module,
    folder: Path,
    config: Mapping[str, Any],
    *,
    stem: str = "model",
    dtype: jax.typing.DTypeLike = jnp.float32,
    rename: Callable[[str], str] = lambda key: key,
) -> None:
    """Write a module as a checkpoint folder that transformers or diffusers can load.

    Args:
        module: The module whose parameters are written.
        folder: Created when missing; ``config.json`` and one safetensors file.
        config: The Hugging Face configuration of the module.
        stem: ``"model"`` (transformers) or ``"diffusion_pytorch_model"`` (diffusers).
        dtype: Type of floating parameters in the file; others keep their type.
        rename: Maps the key of a parameter to the key in the file.
    """
    tensors = {}
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        value = _to_file(np.asarray(variable.get_value()), path)
        if jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(jnp.dtype(dtype))
        tensors[rename(_tensor_of(path))] = np.asarray(value, order="C")
    with atomic_file(folder / f"{stem}.safetensors") as file:
        save_file(tensors, file.name, metadata={"format": "pt"})
    write_json(folder / "config.json", config)


def _tensor_of(path: tuple[Any, ...]) -> str:
    """The key in the checkpoint for a parameter path."""
    *parents, leaf = (str(part) for part in path)
    if leaf in ("kernel", "scale", "embedding"):
        leaf = "weight"
    return ".".join([*parents, leaf])


def _to_file(value: np.ndarray, path: tuple[Any, ...]) -> np.ndarray:
    """A parameter in the layout of the file."""
    if path[-1] != "kernel":
        return value
    return value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)


def _from_file(
    value: np.ndarray, path: tuple[Any, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """A tensor of the file in the layout of the parameter."""
    if path[-1] != "kernel":
        return value
    if value.ndim == 4 and len(shape) == 2 and value.shape[2:] == (1, 1):
        value = value[:, :, 0, 0]  # a 1 x 1 convolution is a linear map
    if value.ndim == 2:
        return value.T
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def _match_keys(
    weights: Iterable[str],
    wanted: Mapping[tuple[Any, ...], Any],
    rename: Callable[[str], str],
    ignored: tuple[str, ...],
) -> tuple[dict[tuple[Any, ...], str], list[_Fault]]:
    """Pair parameter paths with keys of the file; a path or key alone is a fault."""
    path_of = {_tensor_of(path): path for path in wanted}
    names: dict[tuple[Any, ...], str] = {}
    faults = []
    for name in weights:
        key = rename(name)
        path = path_of.get(key)
        if path is None:
            if not any(re.fullmatch(pattern, key) for pattern in ignored):
                faults.append(f"{name}: in the file, unknown to the network")
        elif path in names:
            faults.append(f"{name}: the same parameter as {names[path]}")
        else:
            names[path] = name
    faults += [
        f"{_tensor_of(path)}: needed by the network, not in the file"
        for path in wanted
        if path not in names
    ]
    return names, [_Fault("W04", text) for text in faults]


def _as_leaf(
    name: str,
    value: np.ndarray,
    path: tuple[Any, ...],
    like: jax.ShapeDtypeStruct,
    dtype: jax.typing.DTypeLike,
    device: jax.Device | None,  # pyright: ignore[reportInvalidTypeForm]
) -> jax.Array | _Fault:
    """Convert a tensor of the file to a parameter, or return the fault."""
    leaf = _from_file(value, path, like.shape)
    if leaf.shape != like.shape:
        # The network's shape is shown in the layout of the file, to be compared.
        needed = _to_file(np.broadcast_to(0, like.shape), path).shape
        return _Fault(
            "W04", f"{name}: shape {value.shape} in the file, {needed} in the network"
        )
    floating = jnp.issubdtype(like.dtype, jnp.floating)
    if jnp.issubdtype(leaf.dtype, jnp.floating) != floating:
        return _Fault(
            "W04", f"{name}: {leaf.dtype} in the file, {like.dtype} in the network"
        )
    stored = jnp.dtype(dtype) if floating else like.dtype
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is found below
        leaf = leaf.astype(stored, copy=False)
    bad = leaf.size - np.count_nonzero(np.isfinite(leaf))
    if bad == 0:  # wait, so that only one copy at a time is on the host
        return jax.device_put(leaf, device).block_until_ready()
    if np.isfinite(value).all():
        return _Fault("W07", f"{name}: {bad} of {leaf.size} overflow {leaf.dtype}")
    return _Fault("W07", f"{name}: {bad} of {leaf.size} are NaN or infinite")


def _misfit(faults: list[_Fault]) -> CheckpointError:
    """The error with all faults; its code is ``W04`` if any fault has this code."""
    lines = [fault.text for fault in faults[:_MAX_FAULTS_SHOWN]]
    if len(faults) > len(lines):
        lines.append(f"... and {len(faults) - len(lines)} more")
    text = "\n  ".join(["the checkpoint cannot fill the network:", *lines])
    return CheckpointError(min(fault.code for fault in faults), text)
