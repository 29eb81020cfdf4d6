"""Translation of Flax checkpoints to the names and layouts of PyTorch.

Both libraries of Hugging Face wrote Flax networks by the same rules. A kernel is a
weight whose axes have another order. The scale of a norm and the vectors of an
embedding are weights, and all other names are the same. diffusers also wrote
``blocks_0`` for ``blocks.0``.
"""

import re

from dslo_jax.errors import CheckpointError
from dslo_jax.weights.stored import StoredTensor, Table


_LISTS = re.compile(
    r"\b(down_blocks|up_blocks|resnets|attentions|transformer_blocks|downsamplers"
    r"|upsamplers|net|to_out)_(\d+)\b"
)


def respell_flax(table: Table) -> Table:
    """Translate the names of a Flax checkpoint to those of PyTorch.

    Args:
        table: The arrays by their path in the tree, with ``.`` between names.

    Raises:
        CheckpointError: Two arrays would have the same name (``W04``).
    """
    respelt: Table = {}
    for path, tensor in table.items():
        name = _LISTS.sub(r"\1.\2", path.removeprefix("params."))
        head, _, leaf = name.rpartition(".")
        if leaf in ("kernel", "scale", "embedding"):
            name = f"{head}.weight" if head else "weight"
        if name in respelt:
            raise CheckpointError(
                "W04", f"{tensor.path} is damaged: two of its arrays are {name!r}"
            )
        respelt[name] = _in_torch_layout(tensor) if leaf == "kernel" else tensor
    return respelt


def _in_torch_layout(kernel: StoredTensor) -> StoredTensor:
    """Reorder the axes (inputs, outputs), or (height, width, inputs, outputs)."""
    match len(kernel.shape):
        case 2:
            return kernel.transposed(1, 0)
        case 4:
            return kernel.transposed(3, 2, 0, 1)
        case _:
            return kernel
