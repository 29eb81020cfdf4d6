"""``python -m dslo_jax.demo``: the main job on a bundled photograph, offline."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from dslo_jax import cli
from dslo_jax.demo.random_weights import write_random_checkpoint


# CC0, by Rachel Michetti, courtesy of Pikolo Espresso Bar; from scikit-image's samples.
PHOTO = Path(__file__).parent / "coffee.jpg"
CLASSES = "coffee, cup|mug, saucer|plate, spoon, wooden table"


def main() -> int:
    """Segment the photograph in both modes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dslo_jax.demo")
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--classes", default=CLASSES)
    options = parser.parse_args()
    checkpoint = write_random_checkpoint(options.out / "checkpoint")
    Console(stderr=True).print(
        "The bundled checkpoint has random weights: this shows that everything runs, "
        "and how fast. Its labels mean nothing."
    )
    codes = [
        cli.main(
            [
                *("segment", str(PHOTO), "--classes", options.classes),
                *("--model", str(checkpoint), "--mode", mode),
                *("--out", str(options.out / mode)),
            ]
        )
        for mode in ("path", "velocity")
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
