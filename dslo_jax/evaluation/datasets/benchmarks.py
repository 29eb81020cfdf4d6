"""Benchmarks of open-vocabulary segmentation, as data: the paper's eight, and LoveDA.

Of the eight, class names and their order are those that the field measures with: VOC's
boat is a "ship", its dining table a "table", a person has seven names, and some names
of several words are written as one ("chestofdrawers"). They are the files
``configs/cls_*.txt`` of SCLIP (wangf3014/SCLIP), which those of NACLIP (sinahmr/NACLIP)
equal. Splits, folders, suffixes and the meaning of labels are those of mmsegmentation
1.1.1, and of SCLIP for VOC20, Context59 and COCO-Object. Short sides are NACLIP's.

LoveDA (arXiv 2110.08733) is land seen from above. Folders, suffixes and the meaning of
labels are mmsegmentation's (``mmseg/datasets/loveda.py``; its converter makes the
folders). Names and short side are those of SegEarth-OV (likyoo/SegEarth-OV, arXiv
2410.01768), which measures training-free methods on it: ``configs/cls_loveda.txt`` and
``configs/cfg_loveda.py``.
"""

import dataclasses
import functools
import importlib.resources
from dataclasses import dataclass

from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets.layouts import Layout
from dslo_jax.prompts import ClassList, read_class_file
from dslo_jax.prompts.background import words_of


_PACKAGE = "dslo_jax.evaluation.datasets"


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark asks, and where its files are.

    A label of 255 is ignored in every one of them.

    Args:
        name: What commands call it.
        title: What people call it.
        layout: Where its files lie.
        background: Whether class 0 is a background, told by its names like any other
            class. Where it is not, every class is a class of its own, and what belongs
            to none of them is ignored.
        reduce_zero_label: Whether the stored value 0 is ignored and class ``c`` is
            stored as ``c + 1``. Without, class ``c`` is stored as ``c``.
        short_side: Short side in pixels that the field brings photos to for CLIP.
    """

    name: str
    title: str
    layout: Layout
    background: bool = False
    reduce_zero_label: bool = False
    short_side: int = 336

    @property
    def classes(self) -> ClassList:
        """The classes in the order of their labels, each with its synonyms."""
        return self.classes_with(None)

    def classes_with(self, words: str | None) -> ClassList:
        """The classes, with other words for the background.

        Args:
            words: One of ``prompts.BACKGROUNDS``; ``None`` for those of the class file.
                A benchmark without background does not use them.

        Raises:
            OptionError: There is no such list of words (``O03``).
        """
        classes = _read_classes(self.name)
        if not self.background:
            return classes
        synonyms = classes.synonyms
        if words is not None:
            synonyms = (words_of(words), *synonyms[1:])
        return dataclasses.replace(classes, synonyms=synonyms, background=0)


@functools.cache
def _read_classes(name: str) -> ClassList:
    resource = importlib.resources.files(_PACKAGE) / f"classes/{name}.txt"
    with importlib.resources.as_file(resource) as path:
        # "bed" is a background word and a thing of COCO-Object.
        return read_class_file(path, allow_duplicates=True, allow_blank_lines=False)


_VOC = Layout(
    home="VOCdevkit/VOC2012",
    split="val",
    num_photos=1449,
    photos="JPEGImages",
    label_folders=("SegmentationClass", "SegmentationClassAug"),
    split_file="ImageSets/Segmentation/val.txt",
)
_CONTEXT = Layout(
    home="VOCdevkit/VOC2010",
    split="val",
    num_photos=5105,
    photos="JPEGImages",
    label_folders=("SegmentationClassContext",),
    split_file="ImageSets/SegmentationContext/val.txt",
    published="trainval_merged.json",
)
_COCO_OBJECT = Layout(
    home="coco_stuff164k",
    split="val2017",
    num_photos=5000,
    photos="images/val2017",
    label_folders=("annotations/val2017",),
    label_suffix="_instanceTrainIds.png",
    published="annotations/val2017/{name}.png",
)
_COCO_STUFF = dataclasses.replace(_COCO_OBJECT, label_suffix="_labelTrainIds.png")
_CITYSCAPES = Layout(
    home="cityscapes",
    split="val",
    num_photos=500,
    photos="leftImg8bit/val",
    photo_suffix="_leftImg8bit.png",
    label_folders=("gtFine/val",),
    label_suffix="_gtFine_labelTrainIds.png",
    published="gtFine/val/{name}_gtFine_labelIds.png",
)
_ADE20K = Layout(
    home="ade/ADEChallengeData2016",
    split="validation",
    num_photos=2000,
    photos="images/validation",
    label_folders=("annotations/validation",),
)
_LOVEDA = Layout(
    home="loveDA",
    split="val",
    num_photos=1669,
    photos="img_dir/val",
    photo_suffix=".png",
    label_folders=("ann_dir/val",),
)

_ROWS = (
    Benchmark("voc21", "PASCAL VOC 2012, 21 classes", _VOC, background=True),
    Benchmark("context60", "PASCAL Context, 60 classes", _CONTEXT, background=True),
    Benchmark("coco_object", "COCO-Object", _COCO_OBJECT, background=True),
    Benchmark("voc20", "PASCAL VOC 2012, 20 classes", _VOC, reduce_zero_label=True),
    Benchmark(
        "context59", "PASCAL Context, 59 classes", _CONTEXT, reduce_zero_label=True
    ),
    Benchmark("coco_stuff", "COCO-Stuff 164k", _COCO_STUFF),
    Benchmark("cityscapes", "Cityscapes", _CITYSCAPES, short_side=560),
    Benchmark("ade20k", "ADE20K, 150 classes", _ADE20K, reduce_zero_label=True),
    Benchmark(
        "loveda",
        "LoveDA, land cover",
        _LOVEDA,
        background=True,
        reduce_zero_label=True,
        short_side=448,
    ),
)

BENCHMARKS = {row.name: row for row in _ROWS}
"""The benchmarks by name: those of the paper's Table 1 in its order, then others."""


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        OptionError: There is none (``O03``).
    """
    if name not in BENCHMARKS:
        raise OptionError(
            "O03", f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name]
