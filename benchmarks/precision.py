"""Labels in bfloat16 against float32, and the mIoU of both, on drawn scenes.

    python benchmarks/precision.py --save precision

The networks are the bundled ones, and the scenes are held out: nothing was trained or
chosen with them.
"""

import argparse

import numpy as np
from harness import Record, parse

from dslo_jax import Segmenter, scenes
from dslo_jax.devices import find_device
from dslo_jax.evaluation.metrics import Confusion


MODES = ("path", "velocity")
PRECISIONS = ("float32", "bfloat16")
SIZE = 128, 160


def main() -> None:
    """Compare both precisions in both modes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=10)
    options = parse(parser, repeats=1)
    record = Record("dslo.precision.v1", options, find_device(options.device))
    # All of one size, so that few programs are compiled.
    drawn = [scenes.draw_scene(seed, size=SIZE) for seed in range(options.scenes)]
    photos = [scene.pixels for scene in drawn]
    classes = [each.names for each in scenes.CLASSES]
    for mode in MODES:
        labels, scores = {}, {}
        for precision in PRECISIONS:
            segmenter = Segmenter.from_pretrained(
                "demo", mode=mode, dtype=precision, device=options.device
            )
            found = segmenter.batch(photos, classes, batch_size=options.batch)
            labels[precision] = [each.labels for each in found]
            confusion = Confusion.empty(len(classes))
            for scene, each in zip(drawn, found, strict=True):
                confusion += Confusion.of(scene.labels, each.labels, len(classes))
            scores[precision] = confusion.mean_iou
        pairs = zip(*labels.values(), strict=True)
        changed = float(np.mean([np.mean(one != other) for one, other in pairs]))
        row = {"name": mode, "changed_px": changed, "miou": scores}
        words = ", ".join(f"{name} {100 * s:.2f}" for name, s in scores.items())
        record.add(row, f"{mode}: {changed:.3%} of pixels differ; mIoU {words}")


if __name__ == "__main__":
    main()
