"""Many configurations on the same photos, each network run once per distinct setting.

A cell takes the very steps of ``Segmenter``, and gets its labels; what an earlier cell
of the batch has computed for the same photos and the same choices is taken from there.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32

from dslo_jax import checks, images, prompts
from dslo_jax.attention import AffinitySource
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import SolverError
from dslo_jax.evaluation import oracles
from dslo_jax.evaluation.cells import Cell
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.evaluation.networks import Networks
from dslo_jax.evaluation.samples import Sample
from dslo_jax.images import Photo
from dslo_jax.pipeline import Discrepancy
from dslo_jax.segmenter import Segmenter
from dslo_jax.stages import Clock


# What each step depends on; together, all fields but those of the solver.
FEATURE_FIELDS = ("clip_attention", "short_side", "resample")
AFFINITY_FIELDS = ("affinity_size", "timestep", "affinity_layers")
AFFINITY_FIELDS += ("affinity_temperature",)
SOURCE_FIELDS = ("templates", "early_rejection", "rejection_share", "suppression")
SOURCE_FIELDS += ("suppression_threshold", "source_scale")
LABEL_FIELDS = ("upsampling", "spatial_variance", "range_variance")


class Measurement(NamedTuple):
    """What one cell made of one photo.

    Attributes:
        labels: Index of the class of every pixel.
        confusion: True and given classes of the pixels.
        lost: Classes of the photo that early rejection dropped.
        false: Classes that survived it and are not in the photo.
        false_area: Share of the pixels that such classes won, in [0, 1].
        num_steps: Solver steps, mean over the surviving classes.
        converged: Share of the surviving classes that the solver converged for.
        ties: Share of the pixels whose best value two classes share.
        seconds: Of solver and labels; compilation left out.
    """

    labels: Int32[np.ndarray, "height width"]
    confusion: Confusion
    lost: int
    false: int
    false_area: float
    num_steps: float
    converged: float
    ties: float
    seconds: float


class Labelled(NamedTuple):
    """The labels of one photo by one cell, and how they came about.

    Attributes:
        labels: Index of the class of every pixel.
        active: The classes that survived, in order.
        solved: Status of those classes; the arrays have no batch axis.
        ties: Share of tied pixels.
        seconds: As in ``Measurement``.
    """

    labels: Int32[np.ndarray, "height width"]
    active: Int32[np.ndarray, " active"]
    solved: Discrepancy
    ties: float
    seconds: float


class Sweep:
    """Measures cells on batches of photos.

    Args:
        networks: The networks of all cells.
        classes: The classes of the truth.
        cells: What will be measured; also decides which photos may share a batch.
        batch_size: Photos at once; each holds two arrays of the size of an affinity.
    """

    def __init__(
        self,
        networks: Networks,
        classes: prompts.ClassList,
        cells: Sequence[Cell],
        *,
        batch_size: int = 8,
    ):
        self.classes = classes
        self.batch_size = batch_size
        self._affinities: dict[Hashable, AffinitySource] = {}
        self._segmenters: dict[tuple[str, SegmenterConfig], Segmenter] = {}
        for cell in cells:
            if (cell.source, cell.config) not in self._segmenters:
                segmenter = self._segmenter(networks, cell)
                self._segmenters[cell.source, cell.config] = segmenter
        # Cells with the same affinity side by side: only one is held at a time.
        self.cells = sorted(
            dict.fromkeys(cells), key=lambda cell: repr(_affinity_key(cell))
        )
        self._text: dict[Hashable, jax.Array] = {}

    def batch_key(self, sample: Sample) -> Hashable:
        """Equal for photos that may share a batch: those that CLIP sees alike."""
        return self.size_key(sample.truth.shape)

    def size_key(self, size: tuple[int, ...]) -> Hashable:
        """The ``batch_key`` of photos of this height and width."""
        height, width = size
        seen = {
            images.short_side_size((height, width), s.config.short_side, s._patch)
            for s in self._segmenters.values()
        }
        return tuple(sorted(seen))

    def label(
        self, samples: Sequence[Sample], cells: Sequence[Cell]
    ) -> dict[Cell, list[Labelled] | SolverError]:
        """Labels of a batch by several cells.

        Args:
            samples: At most ``batch_size``, with equal ``batch_key``.
            cells: Some of the sweep's.

        Returns:
            One result per photo and cell, or why a cell has no solution.
        """
        work, wanted = _Work(self, samples), set(cells)
        results: dict[Cell, list[Labelled] | SolverError] = {}
        for cell in self.cells:
            if cell in wanted:
                try:
                    segmenter = self._segmenters[cell.source, cell.config]
                    results[cell] = work.label(cell, segmenter)
                except SolverError as error:
                    results[cell] = error
        return results

    def measure(
        self, samples: Sequence[Sample], cells: Sequence[Cell]
    ) -> dict[Cell, list[Measurement] | SolverError]:
        """Compare the labels of a batch with the truth; arguments as for ``label``."""
        return {
            cell: found
            if isinstance(found, SolverError)
            else [self._compare(*pair) for pair in zip(samples, found, strict=True)]
            for cell, found in self.label(samples, cells).items()
        }

    def _compare(self, sample: Sample, found: Labelled) -> Measurement:
        count = len(self.classes)
        confusion = Confusion.of(sample.truth, found.labels, count)
        present = oracles.classes_of(sample.truth, count)
        survived = np.zeros(count, bool)
        survived[found.active] = True
        pixels = max(int(confusion.counts.sum()), 1)
        return Measurement(
            labels=found.labels,
            confusion=confusion,
            lost=int(np.sum(present & ~survived)),
            false=int(np.sum(survived & ~present)),
            false_area=float(confusion.counts[:, ~present].sum() / pixels),
            num_steps=float(found.solved.num_steps.mean()),
            converged=float(found.solved.converged.mean()),
            ties=found.ties,
            seconds=found.seconds,
        )

    def _segmenter(self, networks: Networks, cell: Cell) -> Segmenter:
        setting, config = _setting(cell), cell.config
        if setting not in self._affinities:
            base = networks.sources[cell.source] if cell.source else networks.affinity
            self._affinities[setting] = base.with_choices(
                size=config.affinity_size,
                timestep=config.timestep,
                layers=config.affinity_layers,
                temperature=config.affinity_temperature,
            )
        affinity = self._affinities[setting]
        return Segmenter(networks.clip, networks.tokenizer, affinity, config)

    def _encoding(self, cell: Cell) -> Hashable:
        """Equal for cells whose sources make the same of a photo before they attend."""
        return cell.source, self._affinities[_setting(cell)].encoding

    def _embed(self, segmenter: Segmenter) -> jax.Array:
        """Text embeddings, computed once for each set of templates."""
        templates = segmenter.config.templates
        if templates not in self._text:
            self._text[templates] = segmenter._embed(Clock(), self.classes)
        return self._text[templates]


class _Work:
    """One batch of photos, and what the cells so far have computed for it."""

    def __init__(self, sweep: Sweep, samples: Sequence[Sample]):
        self._sweep = sweep
        self._samples = samples
        missing = sweep.batch_size - len(samples)
        self._padded = [*samples, *[samples[-1]] * missing]
        self._photos: list[Photo] = [sample.photo for sample in self._padded]
        self._known: dict[Hashable, Any] = {}
        self._affinity: tuple[Hashable, Any] = (None, None)

    def label(self, cell: Cell, segmenter: Segmenter) -> list[Labelled]:
        order, counts, solved, seconds = self._solved(cell, segmenter)
        results = []
        for i, sample in enumerate(self._samples):
            clock = Clock()
            dense = cell.config.upsampling == "dense"
            guide = self._recall(
                ("guide", i, segmenter._grid, dense),
                lambda photo=sample.photo: segmenter._fold(Clock(), photo),
            )
            count = int(counts[i])
            labelled = segmenter._label(clock, guide, solved.values[i], count)
            active = order[i, :count]
            mine = jax.tree.map(lambda leaf, i=i, count=count: leaf[i, :count], solved)
            results.append(
                Labelled(
                    labels=active[labelled.labels],
                    active=active,
                    solved=mine,
                    ties=float(np.mean(labelled.tied)),
                    seconds=seconds + _seconds(clock, "labels"),
                )
            )
        return results

    def _solved(self, cell: Cell, segmenter: Segmenter):
        """Order and number of the surviving classes, their maps, seconds per photo."""
        sources_key, sources = self._sources(cell, segmenter)
        maps = cell.oracles & {"map", "shares"}
        choices = cell.config.of_solver()
        key = (sources_key, choices, cell.oracles, _setting(cell))

        def solve():
            order, counts = checks.choose_classes(jax.device_get(sources.active))
            if maps:
                shares = self._shares(segmenter._grid)
                if "map" in maps:
                    shares = np.stack([oracles.true_map(each) for each in shares])
                values = np.take_along_axis(shares, order[:, :, None], axis=1)
                return order, counts, oracles.solved_by_truth(values), 0.0
            clock = Clock()
            affinity = self._attend(cell, segmenter)
            solved = segmenter._solve(clock, sources, order, affinity)
            return order, counts, solved, _seconds(clock, "solver") / len(self._photos)

        return self._recall(("solved", key), solve)

    def _sources(self, cell: Cell, segmenter: Segmenter):
        """What the solver starts from, and the key under which it is known."""
        classes = self._sweep.classes
        features_key = ("features", _pick(cell, FEATURE_FIELDS))
        choices = _pick(cell, SOURCE_FIELDS)
        truths = cell.oracles - {"affinity"}
        key = ("sources", features_key, choices, segmenter._grid, truths)

        def prepare():
            features = self._recall(
                features_key, lambda: segmenter._features(Clock(), self._photos)
            )
            text = self._sweep._embed(segmenter)
            sources = segmenter._prepare(Clock(), features, text, classes)
            non_finite = jax.device_get(sources.non_finite)
            checks.check_logits(non_finite, classes, self._photos)
            return self._corrected(sources, cell, segmenter)

        return key, self._recall(key, prepare)

    def _corrected(self, sources, cell: Cell, segmenter: Segmenter):
        """Sources with what the oracles know."""
        if cell.oracles & {"classes", "map", "shares"}:
            count = len(self._sweep.classes)
            truths = [oracles.classes_of(s.truth, count) for s in self._padded]
            active = segmenter._put(np.stack(truths))
            sources = oracles.RESTART(Clock(), sources, active, config=cell.config)
        if "seeds" in cell.oracles:
            shares = self._shares(segmenter._grid)
            estimates = jax.device_get(sources.source)
            seeds = [
                oracles.true_seeds(*pair)
                for pair in zip(estimates, shares, strict=True)
            ]
            sources = oracles.RESEED(Clock(), sources, segmenter._put(np.stack(seeds)))
        return sources

    def _shares(self, grid: tuple[int, int]) -> np.ndarray:
        count = len(self._sweep.classes)

        def measure():
            shares = [oracles.class_shares(s.truth, count, grid) for s in self._padded]
            return np.stack(shares)

        return self._recall(("shares", grid), measure)

    def _attend(self, cell: Cell, segmenter: Segmenter):
        """The affinity; the one before it is let go."""
        if not cell.config.needs_affinity:
            return None
        key = _affinity_key(cell)
        if self._affinity[0] != key:
            self._affinity = (None, None)
            if "affinity" in cell.oracles:
                shares = self._shares(segmenter._grid)
                truth = np.stack([oracles.true_affinity(each) for each in shares])
                affinity = segmenter._put(truth)
            else:
                encoded = self._recall(
                    ("encoded", self._sweep._encoding(cell)),
                    lambda: segmenter._encode(Clock(), self._photos),
                )
                affinity = segmenter._attend(Clock(), encoded)
            self._affinity = (key, affinity)
        return self._affinity[1]

    def _recall(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _affinity_key(cell: Cell) -> Hashable:
    return _pick(cell, AFFINITY_FIELDS), "affinity" in cell.oracles, cell.source


def _setting(cell: Cell) -> Hashable:
    return cell.source, _pick(cell, AFFINITY_FIELDS)


def _pick(cell: Cell, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(cell.config, name) for name in names)


def _seconds(clock: Clock, stage: str) -> float:
    return sum(timing.seconds for timing in clock.timings if timing.stage == stage)
