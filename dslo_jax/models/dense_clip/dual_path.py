"""A second path through the last blocks, which leaves out their MLPs.

CLIP Surgery and GEM differ only in the attention of this path.
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import Heads, Mask
from dslo_jax.models.dense_clip.variant import (
    DenseInput,
    Layers,
    PatchTokens,
    Tokens,
)
from dslo_jax.work import Work, product


# The last six blocks have a second path: ``range(1, 7)`` in clip_surgery_model.py, and
# ``depth=7`` in gem_wrapper.py, which counts from 1. Both use it for all depths.
_BLOCKS = 6

Mix = Callable[[Tokens, Heads, Mask | None], Float[Array, "batch heads patches size"]]


def run_dual_path(layers: Layers, photos: DenseInput, *, mix: Mix) -> PatchTokens:
    """Run the blocks of CLIP, and beside the last ones a second path.

    The second path begins with the patches before these blocks. Each block adds its
    output projection of values that ``mix`` averages. Queries, keys and values come
    from CLIP's own path. The second path has residuals and no MLP.

    Args:
        layers: All blocks. If there are fewer than six, all have the second path.
        photos: Photos before the first block.
        mix: Function of the normalised tokens, their heads and the mask that returns
            averaged values of the patches.
    """
    hidden, mask = photos.tokens, photos.mask
    for layer in layers[:-_BLOCKS]:
        hidden = layer(hidden, mask)
    patches = hidden[:, 1:]
    for layer in layers[-_BLOCKS:]:
        normalised = layer.layer_norm1(hidden)
        heads = layer.self_attn.heads(normalised)
        patches = patches + layer.self_attn.join(mix(normalised, heads, mask))
        if layer is not layers[-1]:
            hidden = layer.update(hidden, heads, mask)
    return patches


def work_of_dual_path(
    config: ClipVisionConfig, patches: int, *, projected: int, mixing: Work
) -> Work:
    """Computation of the last block and of the second path.

    Args:
        config: Sizes.
        patches: N.
        projected: How many of queries, keys and values the second path needs.
        mixing: Computation of ``mix`` in one block; 2 N C^2 for the output is added.
    """
    size = config.hidden_size
    count = min(_BLOCKS, config.num_hidden_layers)
    each = mixing + product(patches, size, size)
    return product(patches + 1, size, projected * size) + each.times(count)
