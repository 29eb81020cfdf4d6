"""How much upsampling computes and moves, by a formula of our own."""

from typing import Literal

from dslo_jax.cost.work import WORD, Work


NEIGHBOURS = {"bilateral": 25, "bilinear": 9}
"""Cells that a pixel averages, itself included."""

# What is done for every pixel and neighbour to weigh it.
WEIGHING = {
    "bilateral": 13,  # product of two places and three colours 10, then 3 additions
    "bilinear": 9,  # 4 for each of two places: 1 less a distance, at least 0; a product
}


def upsampling_work(
    images: int,
    classes: int,
    patches: int,
    pixels: int,
    method: Literal["bilateral", "bilinear"] = "bilateral",
) -> Work:
    """Of upsampling by neighbouring cells: weights for a pixel, a product with them.

    The photo is folded into cells, the maps are unfolded: each is read and written
    once more.

    Args:
        images: Mapped over.
        classes: Maps of an image.
        patches: Of an image.
        pixels: Of an image.
        method: Bilateral weights take an exponential each, bilinear ones none.
    """
    weights = pixels * NEIGHBOURS[method]
    # Products with the maps and with a map of ones; then the division by its result.
    flops = weights * (WEIGHING[method] + 2 * (classes + 1)) + classes * pixels
    maps = classes * pixels
    moved = 3 * 3 * pixels + classes * patches + 3 * maps
    return Work(
        flops=images * flops,
        transcendentals=images * weights * (method == "bilateral"),
        bytes=images * WORD * moved,
        working_set_bytes=2 * images * WORD * maps,
    )
