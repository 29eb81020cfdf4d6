"""Computation and memory traffic of upsampling, by a formula of our own."""

from typing import Literal

from dslo_jax.work import WORD, Work


NEIGHBOURS = {"bilateral": 25, "bilinear": 9}
"""Number of cells of which a pixel is the weighted mean."""

# Operations for the weight of each pixel and cell. Distances along the columns of
# pixels are shared by a row of cells and not counted.
WEIGHING = {
    "bilateral": 18,  # distance 4, three colours 4 each, smallest exponent 2
    "bilinear": 5,  # distance, its magnitude, 1 minus it, at least 0; the product
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
        pixels: Number of pixels of an image, or of the slots that it is folded into.
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
