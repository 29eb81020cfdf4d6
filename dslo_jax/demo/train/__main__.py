"""``python -m dslo_jax.demo.train FOLDER``: train the bundled networks."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from dslo_jax.demo.train.clip import (
    clip_recipe,
    keys_recipe,
    sharing_recipe,
    tiling_recipe,
)
from dslo_jax.demo.train.curves import plot_curves
from dslo_jax.demo.train.diffusion import autoencoder_recipe, denoiser_recipe
from dslo_jax.demo.train.dino import dino_recipe
from dslo_jax.demo.train.grouping import grouping_recipe
from dslo_jax.demo.train.loop import train
from dslo_jax.demo.train.recipe import Recipe


def main() -> int:
    """Train, or continue an interrupted training; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dslo_jax.demo.train")
    parser.add_argument(
        "folder", type=Path, help="folder for clip, diffusion, dino and runs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the steps, for a trial"
    )
    options = parser.parse_args()
    report = partial(Console(stderr=True, highlight=False).print, markup=False)
    runs, curves = options.folder / "runs", []
    for part in options.only:
        build, folder, steps = PARTS[part]
        steps = max(round(options.share * steps), 1)
        recipe = build(options.folder / folder, steps=steps, seed=options.seed)
        train(recipe, runs, report=report)
        curves.append(runs / f"{recipe.name}.jsonl")
        plot_curves(curves, runs / "curves.png")
    return 0


# In the order of training; a part with the folder of an earlier one continues from it.
PARTS: dict[str, tuple[Callable[..., Recipe], str, int]] = {
    "clip": (clip_recipe, "clip", 4000),
    "sharing": (sharing_recipe, "clip", 1000),
    "tiling": (tiling_recipe, "clip", 2000),
    "autoencoder": (autoencoder_recipe, "diffusion", 1100),
    "denoiser": (denoiser_recipe, "diffusion", 2200),
    "grouping": (grouping_recipe, "diffusion", 2400),
    "keys": (keys_recipe, "clip", 600),
    "dino": (dino_recipe, "dino", 1000),
}


if __name__ == "__main__":
    sys.exit(main())
