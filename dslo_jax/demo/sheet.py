"""The content of the demo: scenes, their true labels, and the results of each mode."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dslo_jax import scenes
from dslo_jax.evaluation.metrics import IGNORE, Confusion
from dslo_jax.outputs import draw_overlay, palette
from dslo_jax.prompts import ClassList, parse_classes
from dslo_jax.segmentation import Segmentation


# The modes and their titles. The logits are those of CLIP, without the method.
MODES: Mapping[str, str] = {
    "logits": "baseline",
    "path": "path",
    "velocity": "velocity",
}
Segment = Callable[[str, np.ndarray, ClassList], Segmentation]
"""Function of a mode, pixels and classes to a result."""

WORLD = parse_classes([(each.name, *each.synonyms) for each in scenes.CLASSES])
COLUMNS = ("photo", "truth", *MODES.values())
# Height and width of all scenes, because each new size needs a compilation.
SIZE = (128, 160)
MAX_MAPS = 6


class Exhibit(NamedTuple):
    """One scene with the results of every mode.

    Attributes:
        seed: Seed of the scene.
        truth: Index in ``names`` of the true class of each pixel; 255 if ``names`` does
            not have this class.
        names: The classes that were asked for.
        results: The results by mode.
    """

    seed: int
    truth: UInt8[np.ndarray, "height width"]
    names: tuple[str, ...]
    results: Mapping[str, Segmentation]

    @property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The pixels of the scene."""
        return next(iter(self.results.values())).pixels

    @property
    def visible(self) -> list[int]:
        """Indices in ``names`` of the classes with most true pixels, largest first."""
        counts = np.bincount(self.truth.ravel(), minlength=IGNORE)[: len(self.names)]
        largest_first = np.argsort(-counts, kind="stable")[:MAX_MAPS]
        return [int(index) for index in largest_first if counts[index]]

    def confusion(self, mode: str) -> Confusion:
        """The confusion of the labels of a mode with the true labels."""
        labels = self.results[mode].labels
        return Confusion.of(self.truth, labels, len(self.names))


class StageTime(NamedTuple):
    """The time of a stage.

    Attributes:
        stage: Name of the stage.
        seconds: Median over the scenes, by mode; modes without this stage are absent.
        compile_seconds: Time of compilation in all modes together.
    """

    stage: str
    seconds: Mapping[str, float]
    compile_seconds: float


class Sheet(NamedTuple):
    """All results of the demo.

    Attributes:
        world: Scenes with all classes of the drawn world.
        own: A scene with the classes of the command line.
    """

    world: tuple[Exhibit, ...]
    own: Exhibit

    @property
    def scores(self) -> Mapping[str, float]:
        """Mean IoU of each mode over all pixels of ``world``, in [0, 1]."""
        empty = Confusion.empty(len(WORLD))
        return {
            mode: sum((e.confusion(mode) for e in self.world), start=empty).mean_iou
            for mode in MODES
        }

    @property
    def times(self) -> tuple[StageTime, ...]:
        """Every stage, in the order of its first use."""
        runs = [
            (mode, timing)
            for exhibit in self.world
            for mode, result in exhibit.results.items()
            for timing in result.timings
        ]
        stages = dict.fromkeys(timing.stage for _, timing in runs)
        return tuple(_stage_time(stage, runs) for stage in stages)


def show(seed: int, classes: ClassList, segment: Segment) -> Exhibit:
    """Draw a scene and segment it in every mode.

    Args:
        seed: Seed of the scene.
        classes: Classes to look for.
        segment: Function of a mode, pixels and classes to a result.
    """
    scene = scenes.draw_scene(seed, size=SIZE)
    results: dict[str, Segmentation] = {
        mode: segment(mode, scene.pixels, classes) for mode in MODES
    }
    return Exhibit(seed, translate(scene.labels, classes), classes.titles, results)


def translate(
    labels: UInt8[np.ndarray, "height width"], classes: ClassList
) -> UInt8[np.ndarray, "height width"]:
    """Translate the labels of a scene to other classes.

    Args:
        labels: Labels of a scene.
        classes: Any classes. The first class that has a name or synonym of a class of
            the world stands for it.

    Returns:
        Indices in ``classes``; 255 where no class stands for the label.
    """
    meaning = dict(zip(WORLD.names, WORLD.class_of_name, strict=True))
    table = np.full(len(WORLD), IGNORE, np.uint8)
    asked = list(zip(classes.names, classes.class_of_name, strict=True))
    for name, index in reversed(asked):
        if name.casefold() in meaning:
            table[meaning[name.casefold()]] = index
    return table[labels]


def draw_panels(exhibit: Exhibit) -> dict[str, Image.Image]:
    """The pictures of one row of the sheet by column, all of the same size."""
    draw = partial(
        draw_overlay, exhibit.pixels, names=exhibit.names, opacity=0.65, legend=False
    )
    known = exhibit.truth != IGNORE
    filled = np.where(known, exhibit.truth, 0)
    photo = draw(labels=filled, opacity=0.0, outlines=False)
    truth = draw(labels=filled)
    # Pixels of other classes look as in the photo.
    unasked = Image.fromarray(~known).convert("L")
    truth.paste(photo, mask=unasked.resize(photo.size, Image.Resampling.NEAREST))
    labelled = {
        title: draw(labels=exhibit.results[mode].labels)
        for mode, title in MODES.items()
    }
    return {"photo": photo, "truth": truth, **labelled}


def draw_map(exhibit: Exhibit, mode: str, index: int) -> Image.Image | None:
    """Draw the map of a class, a pixel per patch, from black to the class's colour.

    Returns:
        The picture; ``None`` for a class that early rejection dropped.
    """
    result = exhibit.results[mode]
    if result.reports[index].rejected:
        return None
    values = result.discrepancy[index]
    colour = palette(exhibit.names)[index]
    low, high = values.min(), values.max()
    shade = (values - low) / (high - low if high > low else 1.0)
    return Image.fromarray(np.rint(shade[..., None] * colour).astype(np.uint8))


def _stage_time(stage: str, runs: Sequence[tuple]) -> StageTime:
    passes = [(mode, timing) for mode, timing in runs if timing.stage == stage]
    seconds: dict[str, float] = {
        mode: statistics.median(t.seconds for of, t in passes if of == mode)
        for mode in MODES
        if any(of == mode for of, _ in passes)
    }
    return StageTime(stage, seconds, sum(t.compile_seconds for _, t in passes))
