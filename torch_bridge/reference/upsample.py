"""Joint bilateral upsampling (Eq. 23): over patches, or over all pixels of a disc."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def joint_bilateral_upsample(
    values: Float[Tensor, "classes height width"],
    photo: Float[Tensor, "photo_height photo_width 3"],
    *,
    spatial_variance: float = 1.0,
    range_variance: float = 0.1,
    radius: int = 2,
) -> Float[Tensor, "classes photo_height photo_width"]:
    """Average the patches around each pixel, with weights of distance and colour.

    A weight is exp(-d^2 / spatial_variance) exp(-|dI|^2 / range_variance): d is
    measured in patches, from the exact position of the pixel on the grid to the patch;
    dI is the difference between the colour of the pixel and the mean colour of the
    patch. Patches outside the grid do not count.

    Args:
        values: Maps on the patch grid.
        photo: RGB in [0, 1], of any size.
        spatial_variance: In patches squared.
        range_variance: In units of colour squared.
        radius: Patches on each side of the one that holds the pixel; 2 gives 5 x 5.
    """
    _, height, width = values.shape
    rows, columns = photo.shape[:2]
    row_cell, row_position = _on_grid(rows, height, photo)
    column_cell, column_position = _on_grid(columns, width, photo)
    colours = cell_colours(photo, height, width)
    total = photo.new_zeros(rows, columns)
    result = values.new_zeros(len(values), rows, columns)
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            y, x = row_cell + down, column_cell + right
            inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
            distance = (row_position - y)[:, None] ** 2 + (column_position - x) ** 2
            patch = (y.clamp(0, height - 1)[:, None], x.clamp(0, width - 1)[None])
            contrast = (photo - colours[patch]).square().sum(dim=-1)
            weight = torch.exp(-distance / spatial_variance - contrast / range_variance)
            weight = torch.where(inside, weight, 0)
            total += weight
            result += weight * values[:, *patch]
    return result / total


def dense_bilateral_upsample(
    values: Float[Tensor, "classes height width"],
    photo: Float[Tensor, "photo_height photo_width 3"],
    *,
    spatial_variance: float = 2.0,
    range_variance: float = 0.02,
) -> Float[Tensor, "classes photo_height photo_width"]:
    """Average all pixels within three standard deviations, as in M2N2.

    The values are first enlarged bilinearly. The loop has a pass for each neighbour, so
    it is for small photos.

    Args:
        values: Maps on the patch grid.
        photo: RGB in [0, 1], of any size.
        spatial_variance: In patches squared; twice the variance of a normal density.
        range_variance: In units of colour squared.
    """
    _, height, width = values.shape
    rows, columns = photo.shape[:2]
    size = (rows, columns)
    large = F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
    reach = 3 * (spatial_variance / 2) ** 0.5
    total = photo.new_zeros(rows, columns)
    result = torch.zeros_like(large)
    for down in range(-int(reach * rows / height), int(reach * rows / height) + 1):
        for right in range(
            -int(reach * columns / width), int(reach * columns / width) + 1
        ):
            distance = (down * height / rows) ** 2 + (right * width / columns) ** 2
            if distance > reach**2 or abs(down) >= rows or abs(right) >= columns:
                continue
            here = (_span(-down, rows), _span(-right, columns))
            there = (_span(down, rows), _span(right, columns))
            contrast = (photo[here] - photo[there]).square().sum(dim=-1)
            exponent = -distance / spatial_variance - contrast / range_variance
            weight = torch.exp(exponent)
            total[here] += weight
            result[:, *here] += weight * large[:, *there]
    return result / total


def cell_colours(
    photo: Float[Tensor, "photo_height photo_width 3"], height: int, width: int
) -> Float[Tensor, "height width 3"]:
    """Mean colour of the photo over each cell of a grid.

    A pixel on the border of two cells counts in both, by its shares.
    """
    vertical = _coverage(photo.shape[0], height, photo)
    horizontal = _coverage(photo.shape[1], width, photo)
    return torch.einsum("hy,wx,yxc->hwc", vertical, horizontal, photo)


def _span(shift: int, length: int) -> slice:
    """The pixels of an axis that remain inside after a shift by ``-shift``."""
    return slice(max(shift, 0), length + min(shift, 0))


def _on_grid(pixels: int, cells: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of each pixel centre, and the position of the centre on the grid."""
    index = torch.arange(pixels, device=like.device)
    cell = (2 * index + 1) * cells // (2 * pixels)
    return cell, (index.to(like.dtype) + 0.5) * cells / pixels - 0.5


def _coverage(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Share of pixels in cells along one axis; rows sum to 1: [cells, pixels]."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    start = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], start + 1) - torch.maximum(
        edges[:-1, None], start
    )
    overlap = overlap.clamp(min=0)
    return (overlap / overlap.sum(dim=1, keepdim=True)).to(like)
