"""The result for one photo: labels, discrepancy maps, and a report for each class."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, UInt8
from PIL import Image

from dslo_jax import outputs
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError, OutputError
from dslo_jax.images import Photo
from dslo_jax.model_info import ModelInfo
from dslo_jax.outputs.notebook import to_html
from dslo_jax.pipeline import ClassLabels
from dslo_jax.pipeline.stages import Timing
from dslo_jax.prompts import ClassList
from dslo_jax.solvers import Reason, Solution


_REJECTED = Reason.CONVERGED.name  # a rejected class is not passed to the solver


class ClassReport(NamedTuple):
    """The report of one class.

    Attributes:
        name: The class as the caller spelled it: the first of its synonyms, or
            "background".
        rejected: Whether early rejection dropped it before the solver.
        num_steps: Solver steps taken; 0 for a rejected class.
        error: The solver's error as its docstring defines it; 0 for a rejected class.
        converged: Whether the solver converged.
        reason: Name of the ``solvers.Reason`` why the solver ended.
        area: Share of the photo's pixels with this label, in [0, 1].
        score: Mean discrepancy of the class over the patches in which it has the
            greatest one; its scale depends on the discrepancy. ``None`` if there is no
            such patch.
    """

    name: str
    rejected: bool
    num_steps: int
    error: float
    converged: bool
    reason: str
    area: float
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map, the discrepancy maps behind it, and a report for each class.

    Attributes:
        labels: Index into ``synonyms`` of every pixel of the photo.
        synonyms: The names of every class.
        discrepancy: Discrepancy map of every class on the patch grid; minus infinity
            for a rejected class, which therefore never wins an argmax.
        reports: One report per class, in the order of ``classes``.
        ties: Share of the pixels, in [0, 1], in which several classes have the greatest
            discrepancy; the lowest of their indices is the label. Pixels that are
            background by the threshold do not count.
        unsure: Share of the pixels, in [0, 1], that are background because their
            greatest probability is below ``background_threshold``; ``None`` without
            a threshold.
        timings: Seconds of every stage; in a batch, those of the whole batch.
        notes: Remarks about the photo and the result, such as conversions.
        photo: The photo as it was segmented.
        config: The options of this result.
        model: The networks; ``None`` if logits and affinity were given.
    """

    labels: Int32[np.ndarray, "height width"]
    synonyms: tuple[tuple[str, ...], ...]
    discrepancy: Float[np.ndarray, "classes grid_height grid_width"]
    reports: tuple[ClassReport, ...]
    ties: float
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]
    photo: Photo
    config: SegmenterConfig
    model: ModelInfo | None = None
    unsure: float | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: the first of each class's synonyms, or "background"."""
        return tuple(report.name for report in self.reports)

    @property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The photo as it was segmented: upright, sRGB."""
        return self.photo.pixels

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

    def files(self, write: Sequence[str] = outputs.DEFAULT_FILES) -> dict[str, bytes]:
        """Encode results as files.

        Args:
            write: Kinds of results out of ``outputs.FILES``. ``"labels"``: a grey PNG
                whose values are the class ids, with 8 or 16 bits. ``"coloured"``: the
                labels as a PNG in the colours of the overlay. ``"overlay"`` and
                ``"overlay_png"``: the overlay as a JPEG or PNG. ``"maps"``: an NPZ with
                the discrepancy map of every class. ``"json"``: ``summary()``.

        Returns:
            File name to content.

        Raises:
            OptionError: A kind is unknown, or there is none (``O03``).
        """
        encoders: Mapping[str, Callable[[], bytes]] = {
            "labels": lambda: outputs.encode_labels(self.labels, len(self.classes)),
            "coloured": lambda: outputs.encode_coloured(self.labels, self.classes),
            "overlay": lambda: outputs.encode_overlay(self.overlay()),
            "overlay_png": lambda: outputs.encode_overlay(
                self.overlay(), lossless=True
            ),
            "maps": lambda: outputs.encode_maps(self._named_maps()),
            "json": lambda: outputs.encode_json(self.summary()),
        }
        chosen = outputs.chosen_files(write)
        return {name: encoders[kind]() for kind, name in chosen.items()}

    def save(
        self, folder: str | Path, write: Sequence[str] = outputs.DEFAULT_FILES
    ) -> Path:
        """Write results into a folder, all of them or none.

        Args:
            folder: Created when missing; an earlier result is replaced as a whole.
            write: As for ``files``.

        Returns:
            The folder.

        Raises:
            OptionError: A kind is unknown, or there is none (``O03``).
            OutputError: The folder holds something else than results, is a file, or
                cannot be written (``O06``); an earlier result is unchanged.
        """
        try:
            return outputs.write_folder(folder, self.files(write))
        except OSError as error:
            remedy = "make room there, or choose another folder"
            raise OutputError.cannot_write(folder, error, remedy=remedy) from error

    def summary(self) -> dict[str, Any]:
        """All results but the arrays; ``segmentation.schema.json`` describes them."""
        height, width = self.labels.shape
        facts = zip(
            self.reports, self.synonyms, outputs.hex_colours(self.classes), strict=True
        )
        classes = [
            {"id": index, "name": report.name, "synonyms": names, "colour": colour}
            | report._asdict()
            for index, (report, names, colour) in enumerate(facts)
        ]
        path = self.photo.path
        return {
            "schema": outputs.SCHEMA,
            "dslo_jax": version("dslo-jax"),
            "photo": {
                "path": None if path is None else os.fspath(path),
                "sha256": self.photo.sha256,
                "height": height,
                "width": width,
            },
            "model": self.model and self.model.facts,
            "grid": self.discrepancy.shape[1:],
            "classes": classes,
            "ties": self.ties,
            "unsure": self.unsure,
            "converged": all(self.converged),
            "notes": self.notes,
            "timings": [timing._asdict() for timing in self.timings],
            "config": self.config.facts,
        }

    def to_supervision(self) -> Any:
        """The classes that the photo shows, as detections with masks.

        Returns:
            ``supervision.Detections`` in the order of the class ids, with
            ``class_name`` in ``data``.

        Raises:
            OptionError: supervision is not installed (``O05``).
        """
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise OptionError(
                "O05", "to_supervision needs a package; pip install supervision"
            ) from error
        present = np.unique(self.labels)
        masks = self.labels == present[:, None, None]
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks),
            mask=masks,
            class_id=present.astype(int),
            data={"class_name": np.array(self.classes)[present]},
        )

    def _named_maps(self) -> dict[str, np.ndarray]:
        """The maps by class name; a name that occurs again gets its id as well."""
        maps: dict[str, np.ndarray] = {}
        for index, (name, values) in enumerate(
            zip(self.classes, self.discrepancy, strict=True)
        ):
            maps[f"{name} (id {index})" if name in maps else name] = values
        return maps

    def _repr_html_(self) -> str:
        """The overlay with a legend, which notebooks show."""
        areas = [report.area for report in self.reports]
        overlay = outputs.draw_overlay(
            self.pixels, self.labels, self.classes, legend=False
        )
        return to_html(overlay, self.classes, areas, self.notes)

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = sorted(self.reports, key=lambda report: -report.area)
        found = ", ".join(f"{r.name} {r.area:.0%}" for r in shares[:6] if r.area > 0)
        return f"Segmentation({height} x {width}: {found})"


def assemble(
    photo: Photo,
    classes: ClassList,
    active: Int32[np.ndarray, " active"],
    solved: Solution,
    labelled: ClassLabels,
    *,
    grid: tuple[int, int],
    timings: tuple[Timing, ...],
    config: SegmenterConfig,
    model: ModelInfo | None = None,
    notes: tuple[str, ...] = (),
) -> Segmentation:
    """Make the result for one photo.

    Args:
        photo: The photo.
        classes: The classes.
        active: Index of each class that survived early rejection.
        solved: Maps and status of these classes in the same order, then padding.
        labelled: The labels.
        grid: Height and width of the patch grid.
        timings: Seconds of every stage.
        config: The options of this result.
        model: The networks, if they are known.
        notes: Further notes, such as those about the networks.
    """
    titles, labels = classes.titles, labelled.labels
    areas = np.bincount(labels.ravel(), minlength=len(titles)) / labels.size
    discrepancy = np.full((len(titles), *grid), -np.inf, np.float32)
    discrepancy[active] = solved.value[: len(active)].reshape(-1, *grid)
    winners = np.argmax(discrepancy, axis=0)
    reports = [ClassReport(name, True, 0, 0.0, True, _REJECTED, 0.0) for name in titles]
    for row, index in enumerate(active.tolist()):
        reports[index] = ClassReport(
            name=titles[index],
            rejected=False,
            num_steps=int(solved.num_steps[row]),
            error=float(solved.error[row]),
            converged=bool(solved.converged[row]),
            reason=Reason(int(solved.reason[row])).name,
            area=float(areas[index]),
            score=_score(discrepancy, index, winners),
        )
    return Segmentation(
        labels=labels,
        synonyms=classes.synonyms,
        discrepancy=discrepancy,
        reports=tuple(reports),
        ties=labelled.ties,
        timings=timings,
        notes=photo.notes + classes.notes + notes + _notes(reports, labelled),
        photo=photo,
        config=config,
        model=model,
        unsure=labelled.unsure,
    )


def _score(
    discrepancy: Float[np.ndarray, "classes grid_height grid_width"],
    index: int,
    winners: Int[np.ndarray, "grid_height grid_width"],
) -> float | None:
    """Mean discrepancy of a class over the patches that it wins."""
    own = discrepancy[index][winners == index]
    return float(own.mean()) if own.size else None


def _notes(reports: list[ClassReport], labelled: ClassLabels) -> tuple[str, ...]:
    """Remarks that a person should read before trusting the labels."""
    notes = []
    if len(reports) == 1:
        notes.append("one class only: it has no rival and takes every pixel")
    stuck = [report for report in reports if not report.converged]
    if stuck:
        reasons = dict.fromkeys(Reason[r.reason].sentence for r in stuck)
        names = ", ".join(report.name for report in stuck)
        notes.append(f"the solver did not converge for: {names}. {' '.join(reasons)}")
    ties, unsure = labelled.ties, labelled.unsure or 0
    if ties > 0.01:
        notes.append(f"{ties:.1%} of the pixels are ties, given to the lower index")
    if unsure > 0.9:
        words = "of the pixels are below background_threshold, and so background"
        notes.append(f"{unsure:.1%} {words}")
    return tuple(notes)
