"""Time of the steps around the solvers against PyTorch, interleaved in one process.

    python benchmarks/stages.py --save stages

The steps are upsampling from 64 x 64 patches to 512 x 512 pixels, the mean
self-attention of ten heads, and all steps from cosines and affinity to labels. PyTorch
runs the reference of ``torch_bridge``, which computes the path of one class after
another, except in rows with "torch batched".
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import Record, effort_of, parse_timed

from dslo_jax import ops
from dslo_jax.attention import average_attention
from dslo_jax.bench.compare import paired_ratio
from dslo_jax.bench.scenes import (
    CELL,
    CHANNELS,
    draw_affinity,
    draw_maps,
    draw_queries_keys,
)
from dslo_jax.bench.timing import Measurement, compile_ahead, measure
from dslo_jax.bench.truth import scaled_error
from dslo_jax.config import SegmenterConfig
from dslo_jax.models.query_key import QueryKey
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.programs import PhotoFeatures
from dslo_jax.pipeline.stages import Clock
from torch_bridge.reference import segment_logits
from torch_bridge.reference.sinkhorn import optimal_path, optimal_path_batched
from torch_bridge.reference.upsample import (
    dense_bilateral_upsample,
    joint_bilateral_upsample,
)


Pair = tuple[Callable[[], Any], Callable[[], Any]]
"""Our function and that of PyTorch, whose results are compared."""


def upsampling(side: int, classes: int, *, dense: bool) -> Pair:
    """Upsampling of the maps of all classes."""
    (maps,), (photo,) = draw_maps(side * side, classes, seed=classes)
    ours = ops.dense_bilateral_upsample if dense else ops.joint_bilateral_upsample
    theirs = dense_bilateral_upsample if dense else joint_bilateral_upsample
    arrays = jnp.asarray(maps), jnp.asarray(photo)
    tensors = torch.from_numpy(maps), torch.from_numpy(photo)
    return compile_ahead(ours, *arrays).call, lambda: theirs(*tensors)


def aggregation(side: int) -> Pair:
    """Two layers of self-attention, averaged over their heads."""
    queries, keys = draw_queries_keys(side * side)
    pairs = tuple(
        QueryKey(jnp.asarray(query), jnp.asarray(key))
        for query, key in zip(queries, keys, strict=True)
    )
    tensors = torch.from_numpy(queries[:, 0]), torch.from_numpy(keys[:, 0])

    def theirs() -> torch.Tensor:
        q, k = (tensor.permute(0, 2, 1, 3).flatten(0, 1) for tensor in tensors)
        total = q.new_zeros(q.shape[1], q.shape[1])
        for head_q, head_k in zip(q, k, strict=True):  # a stack of maps takes 1.3 GB
            total += torch.softmax(head_q @ head_k.T / CHANNELS**0.5, dim=1)
        return total / total.sum(dim=1, keepdim=True)

    ours = compile_ahead(lambda pairs: average_attention(pairs, (0.5, 0.5))[0], pairs)
    return ours.call, theirs


def labelling(
    side: int,
    mode: str,
    classes: int = 21,
    *,
    find_path: Callable[..., torch.Tensor] = optimal_path,
) -> Pair:
    """All steps from cosines and affinity to labels; a third of the classes survive."""
    rng = np.random.default_rng(0)
    affinity = draw_affinity(side * side)
    names = rng.normal(size=(classes, 512)).astype(np.float32)
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    place = rng.integers(0, classes // 3, (4, 4)).repeat(6, axis=0).repeat(7, axis=1)
    noise = 0.02 * rng.normal(size=(24, 28, 512))
    features = (names[place] + noise).astype(np.float32)
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    photo = rng.integers(0, 256, (CELL * side, CELL * side, 3)).astype(np.uint8)
    config = SegmenterConfig.of(mode=mode)
    cosines = torch.from_numpy(np.einsum("hwd,nd->nhw", features, names))
    theirs = partial(
        segment_logits,
        cosines,
        torch.from_numpy(affinity),
        (side, side),
        torch.from_numpy(photo),
        config=config,
        find_path=find_path,
    )
    grids = jnp.array([features.shape[:2]], jnp.int32)
    photos = PhotoFeatures((features.reshape(1, -1, 512),), grids)
    device = jax.device_put((photos, names, affinity[None]))

    def ours() -> np.ndarray:
        clock = Clock()
        photos, text, attention = device
        index = jnp.arange(classes, dtype=jnp.int32)
        logits = programs.LOGITS(
            clock, photos, text, index, num_classes=classes, grid=(side, side)
        )
        given = programs.SOURCES(clock, logits, options=config.source)
        order, counts = checks.choose_classes(np.asarray(given.active))
        discrepancy = config.discrepancy
        if discrepancy.wants_counts:
            counted = checks.count(given, order, counts, jax.default_backend())
            discrepancy = discrepancy.fitted(counted)
        chosen = programs.CHOSEN(clock, given.source, *jax.device_put((order, counts)))
        solved = programs.DISCREPANCY(clock, chosen, attention, discrepancy=discrepancy)
        maps = np.asarray(solved.value[0, : counts[0]]).reshape(-1, side, side)
        upsampled = ops.joint_bilateral_labels(
            maps,
            photo,
            spatial_variance=config.upsampling.spatial_variance,
            range_variance=config.upsampling.range_variance,
        )
        return order[0][upsampled.labels]

    return ours, lambda: theirs().labels


PAIRS: dict[str, Callable[[int], Pair]] = {
    "upsampling, 5 x 5 patches, 8 classes": partial(upsampling, classes=8, dense=False),
    "upsampling, 5 x 5 patches, 21 classes": partial(
        upsampling, classes=21, dense=False
    ),
    "upsampling, dense, 8 classes": partial(upsampling, classes=8, dense=True),
    "self-attention, 10 heads": aggregation,
    "cosines to labels, path": partial(labelling, mode="path"),
    "cosines to labels, path, torch batched": partial(
        labelling, mode="path", find_path=optimal_path_batched
    ),
    "cosines to labels, velocity": partial(labelling, mode="velocity"),
}


def row_of(
    name: str, pair: Pair, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Measurement]]:
    """Times of both, and the difference of their results."""
    found = measure(
        dict(zip(("dslo-jax", "torch"), pair, strict=True)),
        effort_of(options),
    )
    mine, other = (np.asarray(each.result) for each in found.values())
    if np.issubdtype(mine.dtype, np.integer):
        difference = float(np.mean(mine != other))
    else:
        difference = scaled_error(mine, other)
    rows = {key: each.row for key, each in found.items()}
    medians = {key: row["median_s"] for key, row in rows.items()}
    row = {
        "name": name,
        "median_s": medians,
        "samples_s": {key: row["samples_s"] for key, row in rows.items()},
        "statistics": {key: row["statistics"] for key, row in rows.items()},
        "difference": difference,
        "torch_over_this": medians["torch"] / medians["dslo-jax"],
    }
    return row, found


def main() -> None:
    """Measure all pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--side", type=int, default=64, help="patches of an axis")
    options = parse_timed(parser)
    torch.set_num_threads(options.threads)
    record = Record("dslo.bench.stages.v2", options)
    for name in options.pairs:
        row, found = row_of(name, PAIRS[name](options.side), options)
        ours, theirs = found["dslo-jax"], found["torch"]
        record.add(
            row,
            f"{name:40s}{1e3 * ours.median_s:9.1f} ms{1e3 * theirs.median_s:9.1f} ms"
            f"  difference {row['difference']:.1e}",
            {f"{name}, {key}": each.row for key, each in found.items()},
        )
        ratio = paired_ratio(theirs.samples_s, ours.samples_s)
        pair = {"name": name, "a": "torch", "b": "dslo-jax", **ratio.plain()}
        record.pair(pair, f"{'':40s}torch / dslo-jax: {ratio.words}")
    record.end()


if __name__ == "__main__":
    main()
