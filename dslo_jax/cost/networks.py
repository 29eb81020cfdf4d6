"""Computation of the networks, by formulas of our own.

A FLOP is an addition or a multiplication; a product of matrices has two for every pair
of numbers that are multiplied. Only products and convolutions are counted; the rest
(normalisations, activations, softmax) is a few percent in full-size networks. Products
of a convolution with padding are not counted.

Symbols: N tokens or patches, C channels, L layers, H heads.
"""

from collections.abc import Iterator, Sequence

from dslo_jax.models.clip_config import ClipConfig, ClipVisionConfig
from dslo_jax.models.dense_clip.registry import ATTENTIONS
from dslo_jax.models.dinov3_config import Dinov3Config
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAEConfig
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.work import WORD, Work, block, product


HEAD_PASSES = 4  # write and read the scores, read and write the sum of the heads
SOFTMAX = 7  # scale, maximum, difference, sum, division, weight, sum of the heads
_SAME, _AFTER, _NONE = (1, 1), (0, 1), (0, 0)

Size = tuple[int, int]


def attention(tokens: int, context: int, channels: int, heads: int) -> Work:
    """Scores and weighted means, on a CPU head by head in a loop: 4 N N' C."""
    head = product(tokens, channels // heads, context)
    return head.times(2).looped(heads)


def text(config: ClipConfig, prompts: int, tokens: int) -> Work:
    """The text half of CLIP: L blocks on every prompt, and the projection.

    L (2 N (4 C^2 + 2 C I) + 4 N^2 C) + 2 C D for each prompt of N tokens, with I
    channels inside an MLP and D in the shared space.
    """
    sizes = config.text.hidden_size, config.text.intermediate_size
    layers = block(tokens, *sizes).times(config.text.num_hidden_layers)
    projection = product(1, config.text.hidden_size, config.projection_dim)
    return (layers + projection).times(prompts)


def vision(config: ClipConfig, patches: int, mixing: str, proxy: int = 0) -> Work:
    """The vision half of CLIP on a sequence of N patches of p x p pixels.

    2 N 3 p^2 C for the patches, 2 N G^2 C for the G x G positions that are resampled,
    L - 1 blocks as in ``text`` on N + 1 tokens, the last one as ``clip_attention``
    counts it, 2 N C D for the projection. Padding is computed like other patches.

    Args:
        config: Sizes of both halves.
        patches: N.
        mixing: The variant of the vision half.
        proxy: Patches of the proxy, for a variant with one. The proxy itself is not
            counted, see ``proxy``.
    """
    size, layers = config.vision.hidden_size, config.vision.num_hidden_layers
    work = product(patches, 3 * config.vision.patch_size**2, size)
    work += product(patches, config.vision.grid_size**2, size)
    variant = ATTENTIONS[mixing]
    projected = proxy if variant.on_proxy_grid else patches
    work += product(projected, size, config.projection_dim)
    each = block(patches + 1, size, config.vision.intermediate_size)
    work += each.times(layers - 1)
    sizes = (patches, proxy) if variant.needs_proxy else (patches,)
    return work + variant.work(config.vision, *sizes)


def proxy(config: VitConfig, patches: int, others: int) -> Work:
    """All blocks of a DINO on a sequence of N patches of p x p pixels.

    2 N 3 p^2 C for the patches, 2 N G^2 C for the G x G positions that are resampled,
    and L blocks as in ``vit``, on N tokens and ``others`` more.
    """
    size, heads = config.hidden_size, config.num_attention_heads
    tokens = patches + others
    work = product(patches, 3 * config.patch_size**2, size)
    work += product(patches, config.grid_size**2, size)
    each = attention(tokens, tokens, size, heads) + _maps(config, tokens)
    return work + each.times(config.num_hidden_layers)


def vit(
    config: ClipVisionConfig, rows: int, columns: int, others: int, last: int
) -> Work:
    """A vision transformer up to the queries and keys of its block ``last``.

    As in ``vision``, except that attention is computed head by head in a loop, and that
    the last block has only queries and keys: 4 N C^2 for N tokens, ``others`` of which
    are not patches. An MLP has 2 C I weights; with gates (SwiGLU) it has 3 C I.
    """
    size, heads = config.hidden_size, config.num_attention_heads
    tokens, grid = rows * columns + others, config.grid_size
    work = product(rows * columns, 3 * config.patch_size**2, size)
    has_positions = not isinstance(config, Dinov3Config)  # it rotates queries and keys
    if has_positions and (rows, columns) != (grid, grid):
        work += product(rows, grid, (grid + columns) * size)
    block = _maps(config, tokens) + attention(tokens, tokens, size, heads)
    return work + block.times(last) + product(tokens, size, 2 * size)


def _maps(config: ClipVisionConfig, tokens: int) -> Work:
    """The linear maps of a block: projections of the attention, and the MLP."""
    size = config.hidden_size
    gated = isinstance(config, VitConfig | Dinov3Config) and config.swiglu
    maps = 3 if gated else 2
    return product(tokens, size, 4 * size + maps * config.intermediate_size)


def vae(config: VAEConfig, height: int, width: int) -> Work:
    """The encoder of the autoencoder.

    The first convolution has 3 channels, the last one 8. A residual block has two
    convolutions of 3 x 3, 2 * 9 * C C' for each pixel, and one of 1 x 1 if the number
    of channels changes. Between levels there is one with a stride of 2, and on the last
    level an attention with one head, 8 N C^2 + 4 N^2 C.
    """
    size: Size = (height, width)
    channels = config.block_out_channels
    work = convolution(size, 3, channels[0])
    for level, width_out in enumerate(channels):
        width_in = channels[max(level - 1, 0)]
        for layer in range(config.layers_per_block):
            work += _residual(size, width_out if layer else width_in, width_out)
        if level < len(channels) - 1:
            work += convolution(size, width_out, width_out, stride=2, padding=_AFTER)
            size = (size[0] // 2, size[1] // 2)
    last, tokens = channels[-1], size[0] * size[1]
    work += _residual(size, last, last).times(2)
    work += product(tokens, last, last).times(4) + attention(tokens, tokens, last, 1)
    work += convolution(size, last, 8)
    return work + convolution(size, 8, 8, kernel=1, padding=_NONE)


def unet(config: UNetConfig, size: Size, context: int, taps: Sequence[str]) -> Work:
    """The UNet up to the queries and keys of the last tap.

    Residual blocks as in ``vae``, with 2 T C for the time embedding of T channels. A
    transformer has 2 N C^2 for each of its two projections, 8 N C^2 + 4 N^2 C in its
    self-attention, 4 N C^2 + 4 N M C for the M tokens of the prompt, and 24 N C^2 in
    its MLP. Keys and values of the prompt are computed once for all photos.
    """
    work, missing = Work(), set(taps)
    for path, part in _unet_parts(config, size, context):
        work += part
        missing.discard(path)
        if not missing:
            break
    return work


def aggregation(
    layers: Sequence[tuple[int, int]], patches: int, others: int = 0
) -> Work:
    """The scores of all heads, averaged: 2 N N' C for each layer.

    Args:
        layers: Number of heads and of channels of each layer.
        patches: N.
        others: N' - N, the number of tokens that are not patches.
    """
    tokens = patches + others
    each = (product(patches, c // h, tokens).looped(h) for h, c in layers)
    return sum(each, start=Work())


def averaging(
    layers: Sequence[tuple[int, int]],
    patches: int,
    *,
    images: int = 1,
    itemsize: int = WORD,
) -> Work:
    """Computation of ``average_attention``: ``aggregation``, softmax, memory traffic.

    Args:
        layers: Number of heads and of channels of each layer.
        patches: N; all tokens are patches.
        images: Number of images.
        itemsize: Bytes of an entry of queries and keys.
    """
    entries = images * patches**2
    heads = sum(heads for heads, _ in layers)
    channels = sum(channels for _, channels in layers)
    # In the end every row is divided by its sum: two reads, one write.
    moved = WORD * entries * (heads * HEAD_PASSES + 3)
    rest = Work(
        flops=entries * (heads * SOFTMAX + 2),
        transcendentals=entries * heads,
        bytes=moved + 2 * images * patches * channels * itemsize,
        working_set_bytes=2 * WORD * entries,
    )
    return aggregation(layers, patches).times(images) + rest


def convolution(
    size: Size,
    channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: tuple[int, int] = _SAME,
) -> Work:
    """Number of pairs of a tap and a pixel, times 2 C C'."""
    rows, columns = (_taps(length, kernel, stride, padding) for length in size)
    return product(rows * columns, channels, out_channels)


def _taps(length: int, kernel: int, stride: int, padding: tuple[int, int]) -> int:
    """Number of pairs of an output and a pixel under its kernel, along one axis."""
    before, after = padding
    starts = range(-before, length + after - kernel + 1, stride)
    return sum(min(s + kernel, length) - max(s, 0) for s in starts)


def _residual(size: Size, channels: int, out_channels: int, time: int = 0) -> Work:
    work = convolution(size, channels, out_channels)
    work += convolution(size, out_channels, out_channels)
    if channels != out_channels:
        work += convolution(size, channels, out_channels, kernel=1, padding=_NONE)
    return work + product(1, time, out_channels)


def _unet_parts(
    config: UNetConfig, size: Size, context: int
) -> Iterator[tuple[str, Work]]:
    """Every self-attention in order, with the computation since the one before."""
    channels, time = config.block_out_channels, config.time_channels
    last = len(channels) - 1
    pending = product(1, channels[0], time) + product(1, time, time)
    pending += convolution(size, 4, channels[0])
    skips, sizes = [channels[0]], [size]
    for level, width in enumerate(channels):
        for layer in range(config.layers_per_block):
            pending += _residual(sizes[-1], skips[-1], width, time)
            if config.down_attention[level]:
                before, after = _transformer(config, level, sizes[-1], context)
                yield _tap(f"down_blocks.{level}", layer), pending + before
                pending = after
            skips.append(width)
        if level < last:
            pending += convolution(sizes[-1], width, width, stride=2)
            skips.append(width)
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    width = channels[-1]
    pending += _residual(sizes[-1], width, width, time)
    before, after = _transformer(config, last, sizes[-1], context)
    yield _tap("mid_block", 0), pending + before
    pending = after + _residual(sizes[-1], width, width, time)
    for index, level in enumerate(range(last, -1, -1)):
        for layer in range(config.layers_per_block + 1):
            joined = width + skips.pop()
            width = channels[level]
            pending += _residual(sizes[level], joined, width, time)
            if config.up_attention[index]:
                before, after = _transformer(config, level, sizes[level], context)
                yield _tap(f"up_blocks.{index}", layer), pending + before
                pending = after
        if level:
            pending += convolution(sizes[level - 1], width, width)


def _transformer(
    config: UNetConfig, level: int, size: Size, context: int
) -> tuple[Work, Work]:
    """Computation up to the queries and keys of the self-attention, and after them."""
    channels, heads = config.block_out_channels[level], config.heads[level]
    tokens = size[0] * size[1]
    square = product(tokens, channels, channels)
    after = square.times(2) + attention(tokens, tokens, channels, heads)
    after += square.times(2) + attention(tokens, context, channels, heads)
    return square.times(3), after + square.times(12 + 1)


def _tap(block: str, layer: int) -> str:
    return f"{block}.attentions.{layer}.transformer_blocks.0.attn1"
