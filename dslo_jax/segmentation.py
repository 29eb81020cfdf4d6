"""The result for one photo: labels, discrepancy maps, and a report for each class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32, UInt8
from PIL import Image

from dslo_jax import outputs
from dslo_jax.config import SegmenterConfig
from dslo_jax.files import atomic_file
from dslo_jax.images import Photo
from dslo_jax.ops import PixelLabels
from dslo_jax.pipeline.stages import Timing
from dslo_jax.solvers import Reason, Solution


_REJECTED = Reason.CONVERGED.name  # a rejected class is not passed to the solver

SCHEMA = "dslo.segmentation.v1"


class ClassReport(NamedTuple):
    """The report of one class.

    Attributes:
        name: The class as the caller spelled it; the first of its synonyms.
        rejected: Whether early rejection dropped it before the solver.
        num_steps: Solver steps taken; 0 for a rejected class.
        error: The solver's error as its docstring defines it; 0 for a rejected class.
        converged: Whether the solver converged.
        reason: Name of the ``solvers.Reason`` why the solver ended.
        area: Share of the photo's pixels with this label, in [0, 1].
    """

    name: str
    rejected: bool
    num_steps: int
    error: float
    converged: bool
    reason: str
    area: float


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map, the discrepancy maps behind it, and a report for each class.

    Attributes:
        labels: Index into ``classes`` of every pixel of the photo.
        classes: Class names; the first of each class's synonyms.
        discrepancy: Discrepancy map of every class on the patch grid; minus infinity
            for a rejected class, which therefore never wins an argmax.
        reports: One report per class, in the order of ``classes``.
        ties: Share of the pixels, in [0, 1], in which several classes have the greatest
            discrepancy; the lowest of their indices is the label.
        timings: Seconds of every stage; in a batch, those of the whole batch.
        notes: Remarks about the photo and the result, such as conversions.
        pixels: The photo as it was segmented: upright, sRGB.
        config: The options of this result.
    """

    labels: Int32[np.ndarray, "height width"]
    classes: tuple[str, ...]
    discrepancy: Float[np.ndarray, "classes grid_height grid_width"]
    reports: tuple[ClassReport, ...]
    ties: float
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]
    pixels: UInt8[np.ndarray, "height width 3"]
    config: SegmenterConfig

    @property
    def num_steps(self) -> tuple[int, ...]:
        """Solver steps of every class; 0 for a rejected class."""
        return tuple(report.num_steps for report in self.reports)

    @property
    def error(self) -> tuple[float, ...]:
        """The solver's error for every class; 0 for a rejected class."""
        return tuple(report.error for report in self.reports)

    @property
    def converged(self) -> tuple[bool, ...]:
        """Whether the solver converged, for every class."""
        return tuple(report.converged for report in self.reports)

    def map_of(self, name: str) -> Float[np.ndarray, "grid_height grid_width"]:
        """The discrepancy map of a class.

        Raises:
            KeyError: No class has this name.
        """
        if name not in self.classes:
            raise KeyError(f"{name!r} is not among the classes {list(self.classes)}")
        return self.discrepancy[self.classes.index(name)]

    def overlay(self, *, opacity: float = 0.55) -> Image.Image:
        """Draw the labels over the photo, with a legend.

        Args:
            opacity: Opacity of the class colours, in [0, 1].
        """
        return outputs.draw_overlay(
            self.pixels, self.labels, self.classes, opacity=opacity
        )

    def save(
        self, folder: str | Path, *, write: tuple[str, ...] = outputs.DEFAULT_FILES
    ) -> Path:
        """Write all results into a folder.

        The files are ``labels.png`` (one integer per pixel, 8 or 16 bits), ``maps.npz``
        (the discrepancy map of every class), ``segmentation.json`` and ``overlay.png``.

        Args:
            folder: Created when missing; files of an earlier result are replaced.

        Returns:
            The folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        outputs.save_labels(folder / "labels.png", self.labels, len(self.classes))
        outputs.save_maps(
            folder / "maps.npz", dict(zip(self.classes, self.discrepancy, strict=True))
        )
        outputs.save_json(folder / "segmentation.json", self.summary())
        with atomic_file(folder / "overlay.png") as file:
            self.overlay().save(file, format="PNG")
        return folder

    def summary(self) -> dict[str, Any]:
        """All results but the arrays, as plain values."""
        height, width = self.labels.shape
        return {
            "schema": SCHEMA,
            "height": height,
            "width": width,
            "grid": list(self.discrepancy.shape[1:]),
            "classes": [report._asdict() for report in self.reports],
            "ties": self.ties,
            "converged": all(self.converged),
            "notes": list(self.notes),
            "timings": [timing._asdict() for timing in self.timings],
            "config": self.config.flat,
        }

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = sorted(self.reports, key=lambda report: -report.area)
        found = ", ".join(f"{r.name} {r.area:.0%}" for r in shares[:6] if r.area > 0)
        return f"Segmentation({height} x {width}: {found})"


def assemble(
    photo: Photo,
    titles: tuple[str, ...],
    active: Int32[np.ndarray, " active"],
    solved: Solution,
    labelled: PixelLabels,
    *,
    grid: tuple[int, int],
    timings: tuple[Timing, ...],
    config: SegmenterConfig,
    notes: tuple[str, ...] = (),
) -> Segmentation:
    """Make the result for one photo.

    Args:
        photo: The photo.
        titles: Titles of all classes.
        active: Index of each class that survived early rejection.
        solved: Maps and status of these classes in the same order, then padding.
        labelled: For each pixel a row of ``active``, and the ties.
        grid: Height and width of the patch grid.
        timings: Seconds of every stage.
        config: The options of this result.
        notes: Notes about the class list and the networks.
    """
    labels = active[labelled.labels]
    areas = np.bincount(labels.ravel(), minlength=len(titles)) / labels.size
    discrepancy = np.full((len(titles), *grid), -np.inf, np.float32)
    discrepancy[active] = solved.value[: len(active)].reshape(-1, *grid)
    reports = [ClassReport(name, True, 0, 0.0, True, _REJECTED, 0.0) for name in titles]
    for row, index in enumerate(active):
        reports[index] = ClassReport(
            name=titles[index],
            rejected=False,
            num_steps=int(solved.num_steps[row]),
            error=float(solved.error[row]),
            converged=bool(solved.converged[row]),
            reason=Reason(int(solved.reason[row])).name,
            area=float(areas[index]),
        )
    ties = float(np.mean(labelled.tied))
    return Segmentation(
        labels=labels,
        classes=titles,
        discrepancy=discrepancy,
        reports=tuple(reports),
        ties=ties,
        timings=timings,
        notes=photo.notes + notes + _notes(reports, ties),
        pixels=photo.pixels,
        config=config,
    )


def _notes(reports: list[ClassReport], ties: float) -> tuple[str, ...]:
    """Remarks that a person should read before trusting the labels."""
    notes = []
    if len(reports) == 1:
        notes.append("one class only: it has no rival and takes every pixel")
    stuck = [report for report in reports if not report.converged]
    if stuck:
        reasons = dict.fromkeys(Reason[r.reason].sentence for r in stuck)
        names = ", ".join(report.name for report in stuck)
        notes.append(f"the solver did not converge for: {names}. {' '.join(reasons)}")
    if ties > 0.01:
        notes.append(f"{ties:.1%} of the pixels are ties, given to the lower index")
    return tuple(notes)
