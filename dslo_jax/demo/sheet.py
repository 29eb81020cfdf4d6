"""What the demo shows: scenes, their truth, and what each mode makes of them."""

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


# Each mode and how it is called. The logits are what CLIP says without the method.
MODES: Mapping[str, str] = {
    "logits": "baseline",
    "path": "path",
    "velocity": "velocity",
}
Segment = Callable[[str, np.ndarray, ClassList], Segmentation]
"""Mode, pixels and classes to a result."""

WORLD = parse_classes([(each.name, *each.synonyms) for each in scenes.CLASSES])
COLUMNS = ("photo", "truth", *MODES.values())
# A shape that scenes come in; one for all, because every shape compiles anew.
SIZE = (128, 160)
MAX_MAPS = 6


class Exhibit(NamedTuple):
    """One scene in the eyes of every mode.

    Attributes:
        seed: The scene.
        truth: Position in ``names`` of what each pixel shows; 255 where it is nothing
            that was asked for.
        names: The classes that were asked for.
        results: By mode.
    """

    seed: int
    truth: UInt8[np.ndarray, "height width"]
    names: tuple[str, ...]
    results: Mapping[str, Segmentation]

    @property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The scene as a photo."""
        return next(iter(self.results.values())).pixels

    @property
    def visible(self) -> list[int]:
        """Positions in ``names`` of the classes with the most true pixels."""
        counts = np.bincount(self.truth.ravel(), minlength=IGNORE)[: len(self.names)]
        largest_first = np.argsort(-counts, kind="stable")[:MAX_MAPS]
        return [int(index) for index in largest_first if counts[index]]

    def confusion(self, mode: str) -> Confusion:
        """The labels of a mode against the truth."""
        labels = self.results[mode].labels
        return Confusion.of(self.truth, labels, len(self.names))


class StageTime(NamedTuple):
    """What a stage costs.

    Attributes:
        stage: Its name.
        seconds: Median over the scenes, by mode; absent where a mode has no such stage.
        compile_seconds: Spent once, in all modes together.
    """

    stage: str
    seconds: Mapping[str, float]
    compile_seconds: float


class Sheet(NamedTuple):
    """Everything there is to show.

    Attributes:
        world: Scenes in which all classes of the world were asked for.
        own: A scene in which somebody's own words were asked for.
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


def show(
    seed: int,
    classes: ClassList,
    segment: Segment,
) -> Exhibit:
    """Draw a scene and segment it in every mode.

    Args:
        seed: Of the scene.
        classes: What to ask for.
        segment: Mode, pixels and classes to a result.

    Returns:
        The exhibit.
    """
    scene = scenes.draw_scene(seed, size=SIZE)
    results: dict[str, Segmentation] = {
        mode: segment(mode, scene.pixels, classes) for mode in MODES
    }
    return Exhibit(seed, translate(scene.labels, classes), classes.titles, results)


def translate(
    labels: UInt8[np.ndarray, "height width"], classes: ClassList
) -> UInt8[np.ndarray, "height width"]:
    """The truth of a scene in somebody's own words.

    Args:
        labels: Labels of a scene.
        classes: Any classes. Those with a name or synonym of a class of the world stand
            for it; where two do, the first.

    Returns:
        Position in ``classes``; 255 where no class stands for what is seen.
    """
    meaning = dict(zip(WORLD.names, WORLD.class_of_name, strict=True))
    table = np.full(len(WORLD), IGNORE, np.uint8)
    asked = list(zip(classes.names, classes.class_of_name, strict=True))
    for name, index in reversed(asked):
        if name.casefold() in meaning:
            table[meaning[name.casefold()]] = index
    return table[labels]


def draw_panels(exhibit: Exhibit) -> dict[str, Image.Image]:
    """The pictures of one row of the sheet, by column, all of one size."""
    draw = partial(
        draw_overlay, exhibit.pixels, names=exhibit.names, opacity=0.65, legend=False
    )
    known = exhibit.truth != IGNORE
    filled = np.where(known, exhibit.truth, 0)
    photo = draw(labels=filled, opacity=0.0, outlines=False)
    truth = draw(labels=filled)
    # What was not asked for stays as it is in the photo.
    unasked = Image.fromarray(~known).convert("L")
    truth.paste(photo, mask=unasked.resize(photo.size, Image.Resampling.NEAREST))
    labelled = {
        title: draw(labels=exhibit.results[mode].labels)
        for mode, title in MODES.items()
    }
    return {"photo": photo, "truth": truth, **labelled}


def draw_map(exhibit: Exhibit, mode: str, index: int) -> Image.Image | None:
    """The map of one class, from black to the class's colour, one pixel a patch.

    A class that was rejected early has none.
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
