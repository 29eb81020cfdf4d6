"""What windows, the square input and a background threshold do on held-out scenes.

    python benchmarks/background.py --save background

Windows are measured with all classes. The threshold is measured with 13 things and a
background, whose words are once those of everything else in the scenes, and once the
single word "background", which the bundled networks do not know.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from harness import parse, save

from dslo_jax import scenes
from dslo_jax.bench.machine import describe_machine
from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation import Cell
from dslo_jax.evaluation.datasets.samples import Sample
from dslo_jax.evaluation.datasets.scene_set import SceneSet
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.sweeps.networks import load_networks
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.pairs import find_pair
from dslo_jax.pipeline import Networks
from dslo_jax.prompts import ClassList


SIZE = (128, 160)
MODES = ("logits", "velocity")
BATCH = 8
INPUTS = {
    "whole photo": {},
    "windows of 128, 64 apart": {"window": 128, "window_stride": 64},
    "windows of 128, 32 apart": {"window": 128, "window_stride": 32},
    "windows of 96, 48 apart": {"window": 96, "window_stride": 48},
    "windows of 64, 32 apart": {"window": 64, "window_stride": 32},
    "stretched to a square": {"clip_shape": "square"},
    "short side 288, whole photo": {"short_side": 288},
    "short side 288, windows of 192, 96 apart": {
        "short_side": 288,
        "window": 192,
        "window_stride": 96,
    },
}
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def measure(
    networks: Networks,
    samples: Sequence[Sample],
    classes: ClassList,
    configs: Mapping[str, SegmenterConfig],
) -> dict[str, dict[str, float]]:
    """The scores of configurations on the same scenes, by name."""
    cells = {name: Cell(config) for name, config in configs.items()}
    sweep = Sweep(networks, classes, list(cells.values()), batch_size=BATCH)
    totals = {name: Confusion.empty(len(classes)) for name in cells}
    unsure = dict.fromkeys(cells, 0.0)
    for first in range(0, len(samples), BATCH):
        found: Any = sweep.measure(samples[first : first + BATCH], sweep.cells)
        for name, cell in cells.items():
            for each in found[cell]:
                totals[name] += each.confusion
                unsure[name] += (each.unsure or 0.0) / len(samples)
    return {
        name: {"miou": total.mean_iou, "unsure": unsure[name]}
        for name, total in totals.items()
    }


def rows_of(
    part: str, found: Mapping[tuple[str, str], Mapping[str, float]]
) -> list[dict[str, Any]]:
    """One row for each name, with the scores of both modes."""
    names = dict.fromkeys(name for name, _ in found)
    return [
        {
            "part": part,
            "name": name,
            "miou": {mode: found[name, mode]["miou"] for mode in MODES},
            "unsure": found[name, MODES[0]]["unsure"],
        }
        for name in names
    ]


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=40)
    options = parse(parser, repeats=1)
    seeds = scenes.HELD_OUT_SEEDS[: options.scenes]
    networks = load_networks(find_pair("demo"), device="cpu", offline=True)
    base = find_pair("demo").config

    def scores(
        part: str,
        samples: SceneSet,
        classes: ClassList,
        choices: Mapping[str, Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        configs = {
            (name, mode): base.with_options(mode=mode, **choice)
            for name, choice in choices.items()
            for mode in MODES
        }
        plain = {f"{name}/{mode}": config for (name, mode), config in configs.items()}
        found = measure(networks, list(samples), classes, plain)
        rows = rows_of(part, {key: found["/".join(key)] for key in configs})
        for row in rows:
            shown = "  ".join(f"{m} {100 * s:.1f}" for m, s in row["miou"].items())
            print(f"{part}: {row['name']:42s} {shown}  unsure {row['unsure']:.1%}")
        return rows

    every = SceneSet(seeds, "all", SIZE)
    things = SceneSet(seeds, "foreground", SIZE)
    thresholds = {str(each): {"background_threshold": each} for each in THRESHOLDS}
    single = ClassList((("background",), *things.classes.synonyms[1:]))
    rows = [
        *scores("input", every, every.classes, INPUTS),
        *scores("words", things, things.classes, thresholds),
        *scores("single", things, single, thresholds),
    ]
    if options.save:
        result = {"schema": "dslo.bench.background.v1", "scenes": options.scenes}
        result |= {"scale": base.background.scale, "machine": describe_machine()}
        print(save(options.save, result | {"rows": rows}))


if __name__ == "__main__":
    main()
