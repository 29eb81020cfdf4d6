"""Published ways to get features of patches from CLIP, each written out plainly.

Every function takes the blocks of a ``CLIPModel``, the tokens of photos before the
first block (``[photos, tokens, channels]``, class token first), and the grid of
patches. It returns the patches before the last layer norm.
``dslo_jax/models/dense_clip`` names the sources.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


Grid = tuple[int, int]


def vanilla(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """CLIP as it was trained."""
    return _states(blocks, tokens)[-1][:, 1:]


def maskclip(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """The value of each patch in place of the attention, with residual and MLP."""
    tokens, last = _states(blocks[:-1], tokens)[-1][:, 1:], blocks[-1]
    _, _, value = _heads(last, last.layer_norm1(tokens))
    tokens = tokens + _join(last, value)
    return tokens + last.mlp(last.layer_norm2(tokens))


def sclip(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """q-q plus k-k attention, not halved, with residual and MLP."""
    tokens, last = _states(blocks[:-1], tokens)[-1], blocks[-1]
    query, key, value = _heads(last, last.layer_norm1(tokens))
    tokens = tokens + _join(last, (_weights(query, query) + _weights(key, key)) @ value)
    return (tokens + last.mlp(last.layer_norm2(tokens)))[:, 1:]


def clearclip(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """q-q attention alone."""
    tokens, last = _states(blocks[:-1], tokens)[-1], blocks[-1]
    query, _, value = _heads(last, last.layer_norm1(tokens))
    return _join(last, _weights(query, query) @ value)[:, 1:]


def naclip(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """k-k attention with a Gaussian of the distance, std 5 patches, added before it."""
    tokens, last = _states(blocks[:-1], tokens)[-1], blocks[-1]
    _, key, value = _heads(last, last.layer_norm1(tokens))
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    window = tokens.new_zeros(1 + len(places), 1 + len(places))
    for i, (row, column) in enumerate(places, start=1):
        for j, (other_row, other_column) in enumerate(places, start=1):
            square = (row - other_row) ** 2 + (column - other_column) ** 2
            window[i, j] = torch.exp(torch.tensor(-square / (2 * 5.0**2)))
    products = key @ key.mT * key.shape[-1] ** -0.5
    return _join(last, torch.softmax(products + window, dim=-1) @ value)[:, 1:]


def clip_surgery(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """v-v attention in the last six blocks, on a path of its own without MLP."""

    def attend(normalised: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _weights(value, value) @ value

    return _dual_path(blocks, tokens, attend)


def gem(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """Mean of normalised q-q, k-k and v-v attention, on a path of its own."""

    def attend(normalised: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        lengths = normalised.norm(dim=-1).mean(dim=1)[:, None, None, None]
        temperature = query.shape[-1] ** 0.5 / lengths

        def compare(vectors: Tensor) -> Tensor:
            return torch.softmax(vectors @ vectors.mT / temperature, dim=-1)

        total = torch.zeros_like(value)
        for vectors in (query, key, value):
            vectors = F.normalize(vectors, dim=-1)
            vectors = F.normalize(compare(vectors) @ vectors, dim=-1)
            total = total + compare(vectors) @ value
        return total / 3

    return _dual_path(blocks, tokens, attend)


def sc_clip(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """Outliers repaired, calibrated by cosines of earlier blocks, two passes."""
    return torch.stack([_calibrated(blocks, photo[None], grid) for photo in tokens])


def _calibrated(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
    """SC-CLIP of one photo.

    Blocks are counted from 1, and those of 12 are scaled to the depth of the network.
    """
    depth, last = len(blocks), blocks[-1]
    middle, early, first, end = (
        min(int(n * depth / 12 + 0.5), depth - 1) for n in (9, 4, 4, 10)
    )
    states = [state[0] for state in _states(blocks[:-1], tokens)]
    class_token, patches = states[-1][:1], states[-1][1:]
    outliers = local_outliers(patches)
    before = _cosines(repaired(states[middle][1:], outliers, grid))
    after = _cosines(states[early][1:])

    def average(values: Tensor, cosines: Tensor) -> Tensor:
        weights = torch.where(cosines < 0.4, 0.0, cosines)
        return weights / (weights.sum(dim=-1, keepdim=True) + 1e-6) @ values

    def attend(values: Tensor, token: Tensor) -> Tensor:
        _, key, value = _heads(last, last.layer_norm1(values[None]))
        scores = 3 * (before - before.mean())
        scores = scores.masked_fill(scores < 0, -torch.inf)
        weights = (_weights(key, key) + torch.softmax(scores, dim=-1)) / 2
        return _join(last, weights @ value)[0] + 0.3 * token

    calibrated = average(repaired(patches, outliers, grid), before)
    deep = average(attend(calibrated, class_token), after)
    several = torch.stack(states[first : end + 1]).sum(dim=0)
    return deep + average(attend(several[1:], several[:1]), after)


def local_outliers(patches: Tensor) -> list[int]:
    """Patches whose local outlier factor is above its 95 % quantile."""
    distances = torch.cdist(patches.double(), patches.double()) ** 2
    others = len(patches) - 1
    count = 30 if others > 30 else others // 2
    reach, nearest = [], []
    for index, row in enumerate(distances):
        order = [j for j in row.argsort().tolist() if j != index]
        nearest.append(order[:count])
        reach.append(row[order[count - 1]])
    factors = torch.stack(
        [
            torch.stack([reach[i] / reach[j] for j in nearest[i]]).mean()
            for i in range(len(patches))
        ]
    )
    limit = torch.quantile(factors, 0.95)
    return [i for i, factor in enumerate(factors) if factor > limit]


def repaired(patches: Tensor, outliers: Sequence[int], grid: Grid) -> Tensor:
    """Outliers replaced by the mean of adjacent patches that are none."""
    result = patches.clone()
    for outlier in outliers:
        row, column = divmod(outlier, grid[1])
        around = [
            i * grid[1] + j
            for i in range(max(row - 1, 0), min(row + 2, grid[0]))
            for j in range(max(column - 1, 0), min(column + 2, grid[1]))
        ]
        good = [place for place in around if place not in outliers]
        if good:
            result[outlier] = patches[good].mean(dim=0)
    return result


def _dual_path(
    blocks: Sequence[Any], tokens: Tensor, attend: Callable[..., Tensor]
) -> Tensor:
    """The input of the sixth block from the end, and the attentions from there on."""
    states = _states(blocks[:-1], tokens)
    start = max(len(blocks) - 6, 0)
    total = states[start]
    for block, state in zip(blocks[start:], states[start:], strict=True):
        normalised = block.layer_norm1(state)
        total = total + _join(block, attend(normalised, *_heads(block, normalised)))
    return total[:, 1:]


def _states(blocks: Sequence[Any], tokens: Tensor) -> list[Tensor]:
    """The tokens before the first block and after each."""
    states = [tokens]
    for block in blocks:
        states.append(block(states[-1], attention_mask=None))
    return states


def _heads(block: Any, normalised: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: [photos, heads, tokens, channels]."""
    attention = block.self_attn
    query, key, value = (
        projection(normalised).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value


def _join(block: Any, mixed: Tensor) -> Tensor:
    """The output projection of all heads: [photos, tokens, channels]."""
    return block.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))


def _weights(left: Tensor, right: Tensor) -> Tensor:
    """softmax(left right^T / sqrt(channels)), for each head."""
    return torch.softmax(left @ right.mT * left.shape[-1] ** -0.5, dim=-1)


def _cosines(patches: Tensor) -> Tensor:
    unit = F.normalize(patches, dim=-1)
    return unit @ unit.mT


def _mean_of(first: int, second: int) -> Callable[..., Tensor]:
    """Mean over all blocks of one kind of attention, applied to the last values."""

    def run(blocks: Sequence[Any], tokens: Tensor, grid: Grid) -> Tensor:
        total, value = tokens.new_zeros(()), tokens
        for block, state in zip(blocks, _states(blocks[:-1], tokens), strict=True):
            heads = _heads(block, block.layer_norm1(state))
            total = total + _weights(heads[first], heads[second])
            value = heads[2][:, :, 1:]
        # Drop the class token from rows and columns, without renormalising the rest.
        mean = total[:, :, 1:, 1:] / len(blocks)
        return _join(blocks[-1], mean @ value)

    return run


DEFINITIONS: Mapping[str, Callable[[Sequence[Any], Tensor, Grid], Tensor]] = (
    MappingProxyType(
        {
            "vanilla": vanilla,
            "qk_mean": _mean_of(0, 1),
            "qq_mean": _mean_of(0, 0),
            "kk_mean": _mean_of(1, 1),
            "maskclip": maskclip,
            "clip-surgery": clip_surgery,
            "gem": gem,
            "sclip": sclip,
            "clearclip": clearclip,
            "naclip": naclip,
            "sc-clip": sc_clip,
        }
    )
)
"""All definitions by the name that the option ``clip_attention`` takes."""
