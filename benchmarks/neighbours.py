"""How often the patches nearest to a patch, by their features, show the same thing.

    python benchmarks/neighbours.py --save neighbours

For each patch of held-out scenes, the nearest patches of the same scene, and those of
all other scenes, are found by the cosines of several kinds of features. A patch has the
thing that covers most of it. ``colour`` are the mean and the deviation of the three
colours of a patch, which need no network; ``untrained`` is a DINO as training begins;
``random`` is the share that patches without order have.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import parse, save

from dslo_jax import Segmenter, ops, scenes
from dslo_jax.bench.machine import describe_machine
from dslo_jax.images import resize_photo, short_side_size
from dslo_jax.logits import load_proxy
from dslo_jax.models.proxy import ProxyVit
from dslo_jax.pairs import BUNDLED


SIZE = (128, 160)
SHORT_SIDE = 192  # of the photo for the networks, as in segmenter.toml
NEAREST = (1, 10, 50)
PATCHES = 240  # of each scene, at random places
SIDE = 8  # of a patch of both networks


def things(labels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The label that covers most of each patch."""
    rows, columns = (
        np.arange(length) * cells // length
        for length, cells in zip(labels.shape, grid, strict=True)
    )
    counts = np.zeros((*grid, labels.max() + 1), int)
    np.add.at(counts, (rows[:, None], columns[None], labels), 1)
    return counts.argmax(axis=-1).ravel()


def shares(
    features: np.ndarray, things: np.ndarray, photo: np.ndarray, *, elsewhere: bool
) -> list[float]:
    """For each number of neighbours, the share of them with the thing of the patch.

    Args:
        features: Features of patches.
        things: The thing of each patch.
        photo: The photo of each patch.
        elsewhere: Whether the neighbours are those in other photos, not in the same.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(length, 1e-12)
    found = []
    for mine in np.unique(photo):
        rows = photo == mine
        others = ~rows if elsewhere else rows
        cosines = features[rows] @ features[others].T
        if not elsewhere:
            np.fill_diagonal(cosines, -np.inf)
        order = np.argpartition(-cosines, max(NEAREST), axis=1)[:, : max(NEAREST)]
        near = np.take_along_axis(cosines, order, axis=1)
        order = np.take_along_axis(order, np.argsort(-near, axis=1), axis=1)
        found.append(things[others][order] == things[rows][:, None])
    same = np.concatenate(found)
    return [float(same[:, :number].mean()) for number in NEAREST]


def random_share(things: np.ndarray, photo: np.ndarray, *, elsewhere: bool) -> float:
    """The share of pairs of patches with the same thing, mean over the patches."""
    found = []
    for mine in np.unique(photo):
        rows = photo == mine
        others = ~rows if elsewhere else rows
        counts = np.bincount(things[others], minlength=things.max() + 1)
        number = others.sum() - (not elsewhere)
        found.append((counts[things[rows]] - (not elsewhere)) / number)
    return float(np.concatenate(found).mean())


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    options = parse(parser, repeats=1)
    dino = load_proxy(BUNDLED["demo"] / "dino")
    untrained = ProxyVit(dino.config, rngs=nnx.Rngs(0))
    segmenter = Segmenter.from_pretrained("demo", offline=True, device="cpu")
    clip = segmenter.networks.logits.module.clip
    size = short_side_size(SIZE, SHORT_SIDE, SIDE)
    grid = size[0] // SIDE, size[1] // SIDE

    @jax.jit
    def features_of(dino, untrained, clip, patches):
        proxy = dino.of_patches(patches)
        keys = proxy.keys.transpose(0, 2, 1, 3).reshape(*proxy.features.shape)
        return {
            "DINO, features": proxy.features[0],
            "DINO, keys of the last block": keys[0],
            "DINO, untrained": untrained.of_patches(patches).features[0],
            "CLIP, features": clip.patch_features(patches, attention="vanilla")[0],
        }

    rng = np.random.default_rng(0)
    collected: dict[str, list[np.ndarray]] = {}
    of_patches, photo = [], []
    for index, seed in enumerate(scenes.HELD_OUT_SEEDS[: options.scenes]):
        scene = scenes.draw_scene(seed, size=SIZE)
        pixels = resize_photo(scene.pixels, size)
        cut = ops.cut_patches(pixels, SIDE, grid[0] * grid[1])
        unit = jnp.asarray(cut.pixels.astype(np.float32) / 255)
        kinds = features_of(
            dino, untrained, clip, ops.Patches(unit, jnp.asarray(cut.grid))
        )
        colours = np.asarray(unit[0]).reshape(len(unit[0]), -1, 3)
        kinds["colour"] = np.concatenate(
            [colours.mean(axis=1) - 0.5, colours.std(axis=1)], axis=1
        )
        chosen = rng.permutation(grid[0] * grid[1])[:PATCHES]
        for name, features in kinds.items():
            rows = np.asarray(features, np.float32)[chosen]
            collected.setdefault(name, []).append(rows)
        of_patches.append(things(scene.labels, grid)[chosen])
        photo.append(np.full(len(chosen), index))
    labels, photo = np.concatenate(of_patches), np.concatenate(photo)
    rows = []
    for elsewhere in (False, True):
        where = "other scenes" if elsewhere else "same scene"
        for name, features in collected.items():
            found = shares(np.concatenate(features), labels, photo, elsewhere=elsewhere)
            rows.append({"where": where, "name": name, "shares": found})
        chance = random_share(labels, photo, elsewhere=elsewhere)
        found = [chance] * len(NEAREST)
        rows.append({"where": where, "name": "random", "shares": found})
    for row in rows:
        numbers = " ".join(f"{share:.3f}" for share in row["shares"])
        print(f"{row['where']:14s}{row['name']:32s}{numbers}")
    if options.save:
        result = {
            "schema": "dslo.bench.neighbours.v1",
            "scenes": options.scenes,
            "nearest": NEAREST,
            "machine": describe_machine(),
            "rows": rows,
        }
        print(save(options.save, result))


if __name__ == "__main__":
    main()
