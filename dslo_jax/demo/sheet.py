"""The content of the demo: scenes, their true labels, and the results of each mode."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dslo_jax import scenes
from dslo_jax.demo.components import KNOWN, ComponentScore, Labels, scores_of
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
Informed = Callable[[np.ndarray, np.ndarray, ClassList], Mapping[str, Labels]]
"""Function of pixels, their true labels and classes to labels; see ``Components``."""

WORLD = parse_classes([each.names for each in scenes.CLASSES])
KNOWN_TITLE = "path, true affinity"
COLUMNS = ("photo", "truth", *MODES.values(), KNOWN_TITLE)
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
        rows: The labels by row of the paper; see ``components``.
    """

    seed: int
    truth: UInt8[np.ndarray, "height width"]
    names: tuple[str, ...]
    results: Mapping[str, Segmentation]
    rows: Mapping[str, Labels]

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

    @property
    def shown(self) -> list[int]:
        """Indices in ``names`` of the classes in any picture, as in ``names``."""
        truth = self.truth[self.truth != IGNORE]
        seen = [truth, *(labels.ravel() for labels in self.labels.values())]
        return [int(index) for index in np.unique(np.concatenate(seen))]

    @property
    def labels(self) -> Mapping[str, Labels]:
        """The labels by column: one for each mode, and with a true affinity."""
        found: dict[str, Labels] = {
            title: self.results[mode].labels for mode, title in MODES.items()
        }
        return found | {KNOWN_TITLE: self.rows[KNOWN]}

    @property
    def scores(self) -> Mapping[str, float]:
        """Mean IoU by column, in [0, 1]."""
        return {
            title: self.compare(labels).mean_iou
            for title, labels in self.labels.items()
        }

    def compare(self, labels: Labels) -> Confusion:
        """The confusion of labels with the true labels."""
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
        """Mean IoU of each column over all pixels of ``world``, in [0, 1]."""
        return {
            title: _total(e.compare(e.labels[title]) for e in self.world).mean_iou
            for title in COLUMNS[2:]
        }

    @property
    def components(self) -> tuple[ComponentScore, ...]:
        """What each component of the method adds, over all pixels of ``world``."""
        rows = self.world[0].rows
        return scores_of(
            {row: _total(e.compare(e.rows[row]) for e in self.world) for row in rows}
        )

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
    seed: int, classes: ClassList, segment: Segment, informed: Informed
) -> Exhibit:
    """Draw a scene and segment it in every mode, and by every row of the paper.

    Args:
        seed: Seed of the scene.
        classes: Classes to look for.
        segment: Function of a mode, pixels and classes to a result.
        informed: Function of pixels, their true labels and classes to labels by row.
    """
    scene = scenes.draw_scene(seed, size=SIZE)
    results: dict[str, Segmentation] = {
        mode: segment(mode, scene.pixels, classes) for mode in MODES
    }
    truth = translate(scene.labels, classes)
    rows = informed(scene.pixels, truth, classes)
    return Exhibit(seed, truth, classes.titles, results, rows)


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
    labelled = {title: draw(labels=labels) for title, labels in exhibit.labels.items()}
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


def _total(confusions: Iterable[Confusion]) -> Confusion:
    return sum(confusions, start=Confusion.empty(len(WORLD)))


def _stage_time(stage: str, runs: Sequence[tuple]) -> StageTime:
    passes = [(mode, timing) for mode, timing in runs if timing.stage == stage]
    seconds: dict[str, float] = {
        mode: statistics.median(t.seconds for of, t in passes if of == mode)
        for mode in MODES
        if any(of == mode for of, _ in passes)
    }
    return StageTime(stage, seconds, sum(t.compile_seconds for _, t in passes))
