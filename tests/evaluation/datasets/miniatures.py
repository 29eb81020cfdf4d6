"""Miniature data sets in the layouts of the benchmarks.

What a file is called and what its values mean is written down here once more, apart
from the package.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


SIZES = ((7, 5), (4, 9), (6, 6))


@dataclass(frozen=True)
class Spec:
    """A benchmark as published: file names, stored values, and what they mean."""

    home: str
    names: tuple[str, ...]
    photo: str
    labels: str
    first: int  # stored value of class 0
    num_classes: int
    ignored: tuple[int, ...]  # stored values that do not count
    split: str | None = None
    palette: bool = False


VOC_NAMES = ("2007_000033", "2007_000042", "2011_003276")
VOC = {
    "home": "VOCdevkit/VOC2012",
    "names": VOC_NAMES,
    "photo": "JPEGImages/{}.jpg",
    "labels": "SegmentationClass/{}.png",
    "split": "ImageSets/Segmentation/val.txt",
    "palette": True,
}
CONTEXT = {
    "home": "VOCdevkit/VOC2010",
    "names": ("2008_000002", "2008_000003", "2010_006070"),
    "photo": "JPEGImages/{}.jpg",
    "labels": "SegmentationClassContext/{}.png",
    "split": "ImageSets/SegmentationContext/val.txt",
}
COCO = {
    "home": "coco_stuff164k",
    "names": ("000000000139", "000000000285", "000000581781"),
    "photo": "images/val2017/{}.jpg",
}
SPECS = {
    "voc21": Spec(**VOC, first=0, num_classes=21, ignored=(255,)),
    "voc20": Spec(**VOC, first=1, num_classes=20, ignored=(0, 255)),
    "context60": Spec(**CONTEXT, first=0, num_classes=60, ignored=(255,)),
    "context59": Spec(**CONTEXT, first=1, num_classes=59, ignored=(0, 255)),
    "coco_object": Spec(
        **COCO,
        labels="annotations/val2017/{}_instanceTrainIds.png",
        first=0,
        num_classes=81,
        ignored=(),
    ),
    "coco_stuff": Spec(
        **COCO,
        labels="annotations/val2017/{}_labelTrainIds.png",
        first=0,
        num_classes=171,
        ignored=(255,),
    ),
    "cityscapes": Spec(
        home="cityscapes",
        names=(
            "frankfurt/frankfurt_000000_000294",
            "lindau/lindau_000000_000019",
            "munster/munster_000173_000019",
        ),
        photo="leftImg8bit/val/{}_leftImg8bit.png",
        labels="gtFine/val/{}_gtFine_labelTrainIds.png",
        first=0,
        num_classes=19,
        ignored=(255,),
    ),
    "ade20k": Spec(
        home="ade/ADEChallengeData2016",
        names=("ADE_val_00000001", "ADE_val_00000002", "ADE_val_00002000"),
        photo="images/validation/{}.jpg",
        labels="annotations/validation/{}.png",
        first=1,
        num_classes=150,
        ignored=(0, 255),
    ),
    "loveda": Spec(
        home="loveDA",
        names=("2522", "2523", "4190"),
        photo="img_dir/val/{}.png",
        labels="ann_dir/val/{}.png",
        first=1,
        num_classes=7,
        ignored=(0, 255),
    ),
}


def save(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(path)


def random_values(rng, spec: Spec, size: tuple[int, int]) -> np.ndarray:
    """Stored values, the ignored ones, the first and the last class among them."""
    last = spec.first + spec.num_classes - 1
    allowed = [*range(spec.first, last + 1), *spec.ignored]
    values = rng.choice(allowed, size).astype(np.uint8)
    values.flat[: 2 + len(spec.ignored)] = [spec.first, last, *spec.ignored]
    return values


def build(name: str, data: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write a miniature benchmark; returns its root and its stored values by name."""
    spec, rng = SPECS[name], np.random.default_rng(5)
    root, stored = data / spec.home, {}
    for sample, size in zip(spec.names, SIZES, strict=True):
        stored[sample] = random_values(rng, spec, size)
        save(root / spec.labels.format(sample), stored[sample], palette=spec.palette)
        pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
        save(root / spec.photo.format(sample), pixels)
    if spec.split is not None:
        path = root / spec.split
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{sample}\n" for sample in reversed(spec.names)))
        # A photo of another split, which must not be measured.
        save(root / spec.photo.format("2007_000001"), np.zeros((3, 3, 3), np.uint8))
    else:
        save(root / spec.photo.format("._of_macos"), np.zeros((3, 3, 3), np.uint8))
    return root, stored
