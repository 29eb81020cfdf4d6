"""Results of many photos as one JSON object in COCO's format."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool

from dslo_jax.outputs.rle import encode_runs
from dslo_jax.outputs.saved import SavedResult


def coco(results: Iterable[SavedResult]) -> dict[str, Any]:
    """Describe label maps as COCO describes instances.

    Each class that a photo shows is one annotation, whose mask is run lengths (RLE) as
    ``pycocotools`` reads them. Ids count from 1, as is usual in COCO.

    Args:
        results: From ``read_results``. Results of one name are the same photo to other
            programs, so names should differ.

    Returns:
        A value for ``json.dump`` with ``images``, ``categories`` and ``annotations``;
        the ``file_name`` of an image is the name of its result.
    """
    ids: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, result in enumerate(results, start=1):
        height, width = result.labels.shape
        images.append(
            {
                "id": image_id,
                "file_name": result.name,
                "height": height,
                "width": width,
            }
        )
        for name in result.classes:
            ids.setdefault(name, len(ids) + 1)
        for label in np.unique(result.labels).tolist():
            mask = result.labels == label
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[result.classes[label]],
                    "segmentation": {
                        "size": [height, width],
                        "counts": encode_runs(mask),
                    },
                    "area": int(np.count_nonzero(mask)),
                    "bbox": bounds(mask),
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for name, number in ids.items()
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def bounds(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """The smallest box around a mask that is set somewhere.

    Args:
        mask: Where the mask is set.

    Returns:
        Left, top, width and height, in pixels.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
