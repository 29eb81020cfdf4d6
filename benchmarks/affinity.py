"""How much of a patch's attention stays in its own class, and what that is worth.

    python benchmarks/affinity.py --seeds 1000:1100 --save affinity

A row is a self-attention of the bundled networks: a layer of the UNet, a timestep or a
temperature, the last layer of CLIP, or the true affinity. Its figures are the share of
the attention that stays in the class of the patch (the mean over patches, over classes,
and over things of some sizes), where the rest goes, and the mIoU of velocity and path
with this attention. Small things are those of few patches; a thing is a connected part
of a class. ``--tables`` chooses some of the rows, and ``--model`` another folder.

The row ``seeds`` does not depend on the attention: the share of the patches of each
class that have a seed of their own class, of another class only, and none.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from harness import Record, parse
from jaxtyping import Float, Int
from scipy import ndimage

from dslo_jax import scenes
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.datasets.scene_set import SceneSet
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps.cells import Cell
from dslo_jax.evaluation.sweeps.networks import add_attentions, load_networks
from dslo_jax.evaluation.sweeps.oracles import InformedBatch, class_shares
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.evaluation.sweeps.tables import MODES
from dslo_jax.pairs import find_pair
from dslo_jax.pipeline import Memory, Networks


SIZE = (128, 160)
SIZES = ((1, 4), (5, 16), (17, 64), (65, 10**6))  # of things, in patches
TIMESTEPS = (0, 300)
TEMPERATURES = (0.5, 1.0)
BATCH = 8
CLASSES = len(scenes.CLASSES)
THINGS = {scenes.NAMES.index(name) for name in scenes.FOREGROUND}

Labels = Int[np.ndarray, "rows columns"]


def cells(base: Any, networks: Networks, tables: Sequence[str]) -> Iterator[Any]:
    """Names and cells of the attentions that are compared."""
    pair_source = networks.affinity_source(options=base.affinity)
    yield "base", Cell(base)
    if "layers" in tables:
        for layer in pair_source.comparable_layers:
            chosen = base.with_options(affinity_layers=((layer, 1.0),))
            yield layer, Cell(chosen)
    if "timesteps" in tables:
        for timestep in TIMESTEPS:
            yield f"timestep {timestep}", Cell(base.with_options(timestep=timestep))
    if "temperatures" in tables:
        for value in TEMPERATURES:
            chosen = base.with_options(affinity_temperature=value)
            yield f"temperature {value}", Cell(chosen)
    if "truth" in tables:
        yield (
            "true affinity",
            Cell(base.with_options(velocity_steps=4), frozenset({"affinity"})),
        )


def patch_labels(sample: Sample, grid: tuple[int, int]) -> Labels:
    """The class that has the greatest part of each patch."""
    return class_shares(sample.truth, CLASSES, grid).argmax(axis=0).reshape(grid)


def sizes_of_things(labels: Labels) -> Int[np.ndarray, "rows columns"]:
    """Number of patches of the thing that each patch is part of; 0 for stuff."""
    sizes = np.zeros(labels.shape, np.int64)
    for label in THINGS.intersection(np.unique(labels).tolist()):
        parts, count = ndimage.label(labels == label, np.ones((3, 3)))
        for part in range(1, count + 1):
            sizes[parts == part] = np.sum(parts == part)
    return sizes


def flow(
    affinity: Float[np.ndarray, "patches patches"], labels: Labels
) -> Float[np.ndarray, "patches classes"]:
    """The share of the attention of every patch that goes to each class."""
    return affinity @ np.eye(CLASSES, dtype=np.float32)[labels.ravel()]


class Tally:
    """Sums over patches of where their attention goes."""

    def __init__(self):
        self.flows = np.zeros((CLASSES, CLASSES))
        self.counts = np.zeros(CLASSES)
        self.kept = np.zeros(len(SIZES))
        self.sized = np.zeros(len(SIZES))

    def add(self, affinity: np.ndarray, labels: Labels) -> None:
        """Count one photo."""
        goes, own = flow(affinity, labels), labels.ravel()
        np.add.at(self.flows, own, goes)
        np.add.at(self.counts, own, 1)
        sizes, stays = sizes_of_things(labels).ravel(), goes[np.arange(len(own)), own]
        for index, (low, high) in enumerate(SIZES):
            chosen = (sizes >= low) & (sizes <= high)
            self.kept[index] += stays[chosen].sum()
            self.sized[index] += chosen.sum()

    def summary(self) -> dict[str, Any]:
        """Shares in [0, 1]."""
        seen = self.counts > 0
        kept = np.diag(self.flows)
        shares = self.flows[seen] / self.counts[seen, None]
        names = np.array(scenes.NAMES)
        stays = kept[seen] / self.counts[seen]
        by_class = dict(zip(names[seen].tolist(), stays.tolist(), strict=True))
        sized = zip(SIZES, self.kept / np.maximum(self.sized, 1), strict=True)
        leaks = {}
        for name, row in zip(names[seen].tolist(), shares, strict=True):
            row = np.where(names == name, 0, row)
            leaks[name] = {names[i]: round(row[i], 3) for i in row.argsort()[:-4:-1]}
        return {
            "patches": float(kept.sum() / self.counts.sum()),
            "classes": float(np.mean(list(by_class.values()))),
            "by_class": {name: round(float(v), 4) for name, v in by_class.items()},
            "by_size": {
                f"{low}-{high}": round(float(v), 4) for (low, high), v in sized
            },
            "leaks": leaks,
        }


def seeds_row(kept: Any, labels: list[Labels]) -> dict[str, Any]:
    """How many patches of each class have a seed, and of which class."""
    counts = np.zeros((CLASSES, 3))
    for source, own in zip(kept, labels, strict=True):
        own = own.ravel()
        right = source[own, np.arange(len(own))] > 0
        wrong = ~right & (source > 0).any(axis=0)
        for column, chosen in enumerate((right, wrong, ~right & ~wrong)):
            np.add.at(counts[:, column], own, chosen)
    seen = counts.sum(axis=1) > 0
    shares = counts[seen] / counts[seen].sum(axis=1, keepdims=True)
    names = np.array(scenes.NAMES)[seen].tolist()
    return {
        "name": "seeds",
        "columns": ["own", "another", "none"],
        "by_class": dict(zip(names, shares.round(4).tolist(), strict=True)),
        "classes": shares.mean(axis=0).tolist(),
    }


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seeds", default="1000:1100")
    tables = ["layers", "timesteps", "temperatures", "clip", "truth"]
    parser.add_argument("--tables", nargs="*", choices=tables, default=tables)
    options = parse(parser, repeats=1)
    record = Record("dslo.bench.affinity.v1", options)
    pair = find_pair(options.model)
    networks = load_networks(pair, device="cpu", offline=True)
    chosen = dict(cells(pair.config, networks, options.tables))
    if "clip" in options.tables:
        networks, attentions = add_attentions(
            networks, pair, {}, device="cpu", offline=True
        )
        clip = attentions[0]
        own = {"timestep": 0, "affinity_layers": (), "affinity_size": clip.size}
        chosen["clip"] = Cell(pair.config.with_options(**own), attention=clip.key)
    start, stop = map(int, options.seeds.split(":"))
    samples = SceneSet(range(start, stop), size=SIZE)
    scored = {
        (name, mode): Cell(
            cell.config.with_options(**change), cell.oracles, cell.attention
        )
        for name, cell in chosen.items()
        for mode, change in MODES.items()
    }
    sweep = Sweep(networks, samples.classes, list(scored.values()), batch_size=BATCH)
    tallies = {name: Tally() for name in chosen}
    scores = dict.fromkeys(scored, Confusion.empty(CLASSES))
    sources, all_labels = [], []
    for first in range(0, len(samples), BATCH):
        part = [samples.read(i) for i in range(first, min(first + BATCH, len(samples)))]
        found = sweep.measure(part, list(scored.values()))
        for key, cell in scored.items():
            photos = found[cell]
            assert isinstance(photos, list), photos
            scores[key] = sum((each.confusion for each in photos), start=scores[key])
        memory = Memory()
        for name, cell in chosen.items():
            batch = InformedBatch(
                networks, part, samples.classes, cell, size=BATCH, memory=memory
            )
            grid = batch.grid(cell.config)
            labels = [patch_labels(sample, grid) for sample in part]
            for affinity, own in zip(batch.affinity(cell.config), labels, strict=False):
                tallies[name].add(np.asarray(affinity), own)
            if name == "base":
                kept = np.asarray(batch.prepared(cell.config).source)
                active = np.asarray(batch.prepared(cell.config).active)
                sources += list((kept * active[:, :, None])[: len(part)])
                all_labels += labels
    for name, tally in tallies.items():
        row = {"name": name, **tally.summary()}
        row |= {mode: 100 * scores[name, mode].mean_iou for mode in MODES}
        words = ", ".join(f"{key} {row[key]:.3f}" for key in ("patches", "classes"))
        sized = " ".join(f"{key}:{value:.2f}" for key, value in row["by_size"].items())
        miou = ", ".join(f"{mode} {row[mode]:.1f}" for mode in MODES)
        record.add(row, f"{name}: {words}; {sized}; {miou}")
    row = seeds_row(sources, all_labels)
    record.add(row, f"seeds: own, another, none {np.round(row['classes'], 3)}")


if __name__ == "__main__":
    main()
