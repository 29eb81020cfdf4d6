"""How well clicks find drawn things: IoU of point prompts on held-out scenes.

    python benchmarks/points.py --save points

For every class that covers at least one per cent of a scene, one click is made into its
largest part, where the part is widest. All clicks of a scene are prompted at once. The
rows without attention are what the places of the clicks alone give.
"""

import argparse
from collections.abc import Mapping

import numpy as np
from harness import parse, save
from scipy import ndimage

from dslo_jax import Segmenter, scenes
from dslo_jax.bench.machine import describe_machine
from dslo_jax.points import Point


SIZE = (128, 160)
LEAST = 0.01  # of the pixels of a scene


def clicks_of(scene: scenes.Scene) -> dict[Point, np.ndarray]:
    """The clicks ``(x, y)`` into a scene, each with the pixels of its part."""
    found = {}
    for label in np.unique(scene.labels):
        parts, number = ndimage.label(scene.labels == label)
        sizes = ndimage.sum_labels(parts > 0, parts, range(1, number + 1))
        part = parts == 1 + int(np.argmax(sizes))
        if part.mean() < LEAST:
            continue
        depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(np.argmax(depth), part.shape)
        found[int(x), int(y)] = part
    return found


def distances(points: list[Point]) -> np.ndarray:
    """Distance of every pixel from each click."""
    rows, columns = np.indices(SIZE)
    return np.stack([np.hypot(columns - x, rows - y) for x, y in points])


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((mask & truth).sum() / (mask | truth).sum())


def masks_of(segmenter: Segmenter, pixels: np.ndarray, points: list[Point]):
    """The masks of every click, by the way they are made."""
    found = segmenter.prompt(pixels, points)
    far, each = distances(points), np.arange(len(points))[:, None, None]
    reached = found.masks()
    # A disc with as many pixels as the mask.
    radii = [np.sort(d.ravel())[m.sum() - 1] for d, m in zip(far, reached, strict=True)]
    return {
        "nearest prompt": found.labels == each,
        "nearest click, without attention": far.argmin(axis=0) == each,
        "mask within 2 steps": reached,
        "disc of the same area, without attention": far <= np.c_[radii][:, None],
        "whole scene": np.ones_like(reached),
    }


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    options = parse(parser, repeats=1)
    segmenter = Segmenter.from_pretrained("demo", offline=True, device="cpu")
    scores: dict[str, list[float]] = {}
    for seed in scenes.HELD_OUT_SEEDS[: options.scenes]:
        scene = scenes.draw_scene(seed, size=SIZE)
        clicks = clicks_of(scene)
        masks: Mapping[str, np.ndarray] = masks_of(
            segmenter, scene.pixels, list(clicks)
        )
        for name, made in masks.items():
            of_clicks = zip(made, clicks.values(), strict=True)
            scores.setdefault(name, []).extend(iou(*pair) for pair in of_clicks)
    rows = [
        {"name": name, "clicks": len(each), "iou": float(np.mean(each))}
        for name, each in scores.items()
    ]
    for row in rows:
        print(f"{row['name']:42s}{row['iou']:.3f} of {row['clicks']} clicks")
    if options.save:
        result = {"schema": "dslo.bench.points.v1", "scenes": options.scenes}
        print(
            save(options.save, result | {"machine": describe_machine(), "rows": rows})
        )


if __name__ == "__main__":
    main()
