"""What a variant of CLIP's vision network receives, and what it consists of."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int32

from dslo_jax.models.clip_layers import EncoderLayer, Mask
from dslo_jax.work import Work


Layers = Sequence[EncoderLayer]
Tokens = Float[Array, "batch tokens channels"]
PatchTokens = Float[Array, "batch patches channels"]


class ProxyFeatures(NamedTuple):
    """What a second network, the proxy, says about the patches of photos.

    Its patches have a grid of their own. The padding of its sequences must not change
    the features of CLIP's patches either.

    Attributes:
        features: Features after the last layer norm.
        keys: Keys of the last block, for every head.
        is_real: False for the padding of a sequence.
        grid: Number of rows and of columns of every photo, in patches of the proxy.
    """

    features: Float[Array, "batch proxy_patches channels"]
    keys: Float[Array, "batch heads proxy_patches size"]
    is_real: Bool[Array, "batch proxy_patches"]
    grid: Int32[Array, "batch 2"]


class DenseInput(NamedTuple):
    """Photos before the first block. An axis of length 1 stands for all photos.

    A sequence may be longer than its photo. The rest is called padding, and must not
    change the features of the patches.

    Attributes:
        tokens: Tokens before the first block: the class token, then the patches.
        mask: False for the padding; None if there is none. The tokens that attend all
            have the same mask.
        places: Row and column of every patch; the padding lies where the last patch
            lies.
        grid: Number of rows and of columns of every photo, in patches. It is data: one
            program serves all grids.
        proxy: Features of a second network, for variants that need one.
    """

    tokens: Tokens
    mask: Mask | None
    places: tuple[Int32[Array, "#batch patches"], Int32[Array, "#batch patches"]]
    grid: Int32[Array, "#batch 2"]
    proxy: ProxyFeatures | None = None


class Variant(NamedTuple):
    """A variant of CLIP's vision network.

    Attributes:
        run: Function of all blocks and of the photos that returns the patches after
            the last block, before the last layer norm. Every step that mixes tokens
            must obey the mask.
        work: Function of the sizes and of the number of patches that returns the
            computation of the last block, and the further computation in the others.
            If there is a proxy, also of its number of patches.
        needs_proxy: Whether it needs the features of a second network.
        on_proxy_grid: Whether it returns the patches of the proxy, not those of CLIP.
        same_heads: Whether the proxy needs as many heads as CLIP, of the same size.
    """

    run: Callable[[Layers, DenseInput], PatchTokens]
    work: Callable[..., Work]
    needs_proxy: bool = False
    on_proxy_grid: bool = False
    same_heads: bool = False
