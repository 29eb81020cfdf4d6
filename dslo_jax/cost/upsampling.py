"""Computation and memory traffic of upsampling, by a formula of our own."""

from typing import Literal

from dslo_jax.work import WORD, Work


NEIGHBOURS = {"bilateral": 25, "bilinear": 9}
"""Number of cells of which a pixel is the weighted mean."""

# Operations for the weight of each pixel and neighbour.
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
    """Computation of upsampling: the weights of each pixel, and a product with them.

    The photo is folded into cells, and the maps are unfolded, so each of them is read
    and written once more.

    Args:
        images: Number of images.
        classes: Number of maps of an image.
        patches: Number of patches of an image.
        pixels: Number of pixels of an image.
        method: A bilateral weight needs an exponential; a bilinear one does not.
    """
    weights = pixels * NEIGHBOURS[method]
    # Products with the maps and with a map of ones, and the division by the latter.
    flops = weights * (WEIGHING[method] + 2 * (classes + 1)) + classes * pixels
    maps = classes * pixels
    moved = 3 * 3 * pixels + classes * patches + 3 * maps
    return Work(
        flops=images * flops,
        transcendentals=images * weights * (method == "bilateral"),
        bytes=images * WORD * moved,
        working_set_bytes=2 * images * WORD * maps,
    )
