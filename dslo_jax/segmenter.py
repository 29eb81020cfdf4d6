"""A photo and a list of words become a label map: where every other module meets."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import images, ops, pipeline, prompts
from dslo_jax.attention import DiffusionAffinity, load_diffusion
from dslo_jax.config import Mode, SegmenterConfig
from dslo_jax.devices import find_device, network_dtype
from dslo_jax.errors import OptionError, SolverError
from dslo_jax.images import Photo
from dslo_jax.models import hub
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.stages import Clock
from dslo_jax.templates import IMAGENET_TEMPLATES, check_templates


Announce = Callable[[str, bool], None]
Classes = prompts.ClassList | Sequence[str | Sequence[str]]

# Names of a CLIP and an attention source that are known to go together.
PRESETS = {
    "sd2+clip-b16": ("clip-b16", "sd2-base"),
    "sd2+clip-l14": ("clip-l14", "sd2-base"),
}

# Static sizes that the solver compiles for. Support rows come in steps of an eighth of
# the patches: finer steps would save less time than another compilation costs.
_CLASS_BUCKETS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SUPPORT_STEPS = 8


class Segmenter:
    """Segments photos into classes named in plain words, without training.

    Args:
        clip: Gives logits: cosines between patches and words.
        tokenizer: The tokenizer of ``clip``.
        affinity: Gives self-attention between patches; may be ``None`` for the modes
            ``"kl"`` and ``"logits"``, which use none.
        config: Every choice of the method.
        announce: Called with the name of each stage as it begins, and whether it
            compiles first.

    Raises:
        OptionError: The mode needs an affinity and there is none.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Any,
        affinity: DiffusionAffinity | None,
        config: SegmenterConfig | None = None,
        *,
        announce: Announce | None = None,
    ):
        self.config = config or SegmenterConfig()
        if self.config.needs_affinity and affinity is None:
            raise OptionError(
                "O05", f"mode {self.config.mode!r} needs an attention checkpoint"
            )
        self._templates = _templates(self.config)
        self._announce = announce
        self._tokenizer = tokenizer
        self._patch = clip.config.vision.patch_size
        self._device = next(iter(clip.logit_scale.get_value().devices()))
        self._clip = self._split(clip)
        self._affinity = self._split(affinity) if self.config.needs_affinity else None
        # Without an affinity the maps stay on the grid that one would have.
        side = self.config.affinity_size // 8
        self._grid = affinity.grid if affinity else (side, side)
        self._text: dict[str, Float[np.ndarray, " channels"]] = {}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "sd2+clip-b16",
        *,
        clip: str | Path | None = None,
        attention: str | Path | None = None,
        mode: Mode | None = None,
        config: SegmenterConfig | None = None,
        dtype: str = "auto",
        device: str = "auto",
        offline: bool = False,
        announce: Announce | None = None,
    ) -> "Segmenter":
        """Load the networks.

        Args:
            name_or_path: A preset (``"sd2+clip-b16"``, ``"sd2+clip-l14"``) or a folder
                with the sub-folders ``clip`` and ``diffusion``.
            clip: A CLIP folder or repository instead of the preset's.
            attention: A diffusion pipeline folder or repository instead of the
                preset's.
            mode: Overrides ``config.mode``.
            config: Every choice of the method.
            dtype: Precision of the networks, ``"float32"``, ``"bfloat16"`` or
                ``"float16"``; the solvers always use float32. ``"auto"`` is float32 on
                a CPU and bfloat16 elsewhere.
            device: ``"auto"``, ``"cpu"``, ``"gpu"`` or ``"tpu"``, with ``":1"`` for
                the second.
            offline: Never ask a hub.
            announce: Called as each stage begins.

        Returns:
            A segmenter, ready to be called.

        Raises:
            CheckpointError: A checkpoint is missing, foreign or damaged.
            OptionError: A choice is unknown or out of range.
            DeviceError: The device is absent.
        """
        config = config or SegmenterConfig()
        if mode is not None:
            config = dataclasses.replace(config, mode=mode)
        target = find_device(device)
        clip, attention = _parts(name_or_path, clip, attention)
        clip_folder = hub.resolve(clip, "clip", offline=offline)
        precision = network_dtype(dtype, target)
        with jax.default_device(target):
            affinity = None
            if config.needs_affinity:
                affinity = load_diffusion(
                    hub.resolve(attention, "diffusion", offline=offline),
                    dtype=precision,
                    size=config.affinity_size,
                    timestep=config.timestep,
                    layers=config.affinity_layers,
                    temperature=config.affinity_temperature,
                )
            network = load_clip(clip_folder, dtype=precision)
        tokenizer = prompts.load_tokenizer(clip_folder)
        return cls(network, tokenizer, affinity, config, announce=announce)

    def __call__(self, image: Any, classes: Classes) -> Segmentation:
        """Segment one photo.

        Args:
            image: A path, a Pillow image, or an array: uint8 RGB, float in [0, 1],
                or grey.
            classes: One entry per class: a name, or a list of synonyms.

        Returns:
            The label map at the size of the photo, and the maps behind it.

        Raises:
            ImageError: The photo cannot be used.
            ClassListError: The class list cannot be used.
            SolverError: The networks gave values that no solver can use.
        """
        return self.batch([image], classes)[0]

    def batch(
        self,
        photos: Iterable[Any],
        classes: Classes,
        *,
        batch_size: int = 4,
    ) -> list[Segmentation]:
        """Segment many photos, ``batch_size`` at once on the device.

        Photos that CLIP sees at the same size share a batch; an incomplete batch
        repeats its last photo, so that no further shape compiles. The labels are those
        of one photo at a time.

        Args:
            photos: As for one photo, in any mixture of sizes.
            classes: One entry per class: a name, or a list of synonyms.
            batch_size: Photos at once; each holds one affinity (64 MiB at 512 px).

        Returns:
            One result per photo, in the order of the photos.
        """
        if batch_size < 1:
            raise OptionError("O01", f"batch_size = {batch_size}; expected at least 1")
        parsed = prompts.parse_classes(classes)
        read = [
            photo if isinstance(photo, Photo) else images.read_photo(photo)
            for photo in photos
        ]
        batch_size = min(batch_size, max(len(read), 1))
        groups: dict[tuple[int, int], list[int]] = {}
        for index, photo in enumerate(read):
            groups.setdefault(self._clip_size(photo), []).append(index)
        results: dict[int, Segmentation] = {}
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                chunk = group[start : start + batch_size]
                done = self._segment([read[i] for i in chunk], parsed, batch_size)
                results.update(zip(chunk, done, strict=True))
        return [results[index] for index in range(len(read))]

    def _segment(
        self, photos: list[Photo], classes: prompts.ClassList, batch_size: int
    ) -> list[Segmentation]:
        """One batch of photos that CLIP sees at the same size."""
        clock = Clock(self._announce)
        padded = photos + [photos[-1]] * (batch_size - len(photos))
        text = self._embed(clock, classes)
        features = self._features(clock, padded)
        sources = pipeline.SOURCES(
            clock,
            features,
            text,
            self._put(np.asarray(classes.class_of_name, np.int32)),
            num_classes=len(classes),
            grid=self._grid,
            config=self.config,
        )
        _check_logits(np.asarray(sources.non_finite), classes)
        order, counts = _choose_classes(np.asarray(sources.active))
        solved = pipeline.DISCREPANCY(
            clock,
            sources,
            self._put(order),
            self._attend(clock, padded),
            config=self.config,
            support=self._support(np.asarray(sources.support)),
        )
        solved = jax.device_get(solved)
        _check_maps(solved, self.config)
        labelled = [
            self._label(clock, photo, solved.values[i], int(counts[i]))
            for i, photo in enumerate(photos)
        ]
        return [
            assemble(
                photo,
                classes,
                order[i, : counts[i]],
                jax.tree.map(lambda leaf, i=i: leaf[i], solved),
                labelled[i],
                grid=self._grid,
                timings=clock.timings,
                config=self.config,
            )
            for i, photo in enumerate(photos)
        ]

    def _clip_size(self, photo: Photo) -> tuple[int, int]:
        return images.short_side_size(
            photo.pixels.shape[:2], self.config.short_side, self._patch
        )

    def _embed(
        self, clock: Clock, classes: prompts.ClassList
    ) -> Float[Array, "names channels"]:
        """Text embeddings of all names; each name is encoded once per segmenter."""
        new = [name for name in classes.names if name not in self._text]
        if new:
            graph, state = self._clip
            embedded = prompts.embed_names(
                lambda ids: pipeline.TEXT(clock, state, self._put(ids), graph=graph),
                self._tokenizer,
                new,
                self._templates,
            )
            self._text.update(zip(new, np.asarray(embedded), strict=True))
        rows = np.stack([self._text[name] for name in classes.names])
        return self._put(rows)

    def _features(self, clock: Clock, photos: list[Photo]) -> Array:
        size = self._clip_size(photos[0])
        graph, state = self._clip
        return pipeline.FEATURES(
            clock,
            state,
            clock.time("resize", self._resized, photos, size, self.config.resample),
            graph=graph,
            attention=self.config.clip_attention,
        )

    def _attend(self, clock: Clock, photos: list[Photo]) -> Array | None:
        if self._affinity is None:
            return None
        graph, state = self._affinity
        size = (self.config.affinity_size,) * 2
        pixels = clock.time("resize", self._resized, photos, size, "area")
        latents = pipeline.LATENTS(clock, state, pixels, graph=graph)
        return pipeline.AFFINITY(clock, state, latents, graph=graph)

    def _resized(self, photos: list[Photo], size: tuple[int, int], method: str):
        stacked = np.stack(
            [images.resize_photo(photo.pixels, size, method=method) for photo in photos]
        )
        return self._put(stacked)

    def _split(self, module: nnx.Module) -> tuple[Any, Any]:
        """The graph and the parameters of a module, tied to this device."""
        graph, state = nnx.split(module)
        return graph, self._put(state)

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self._device)

    def _support(self, rows: np.ndarray) -> int:
        """Static bound on the patches with mass, rounded up to a bucket."""
        patches = self._grid[0] * self._grid[1]
        step = -(-patches // _SUPPORT_STEPS)
        return min(-(-int(rows.max()) // step) * step, patches)

    def _label(
        self, clock: Clock, photo: Photo, values: np.ndarray, count: int
    ) -> ops.PixelLabels:
        """Row of ``values`` that wins each pixel of the photo; the first ``count``."""
        guide = photo.pixels.astype(np.float32) / 255.0
        layout = ops.cell_layout(guide.shape[:2], self._grid)
        dense = self.config.upsampling == "dense"
        folded = clock.time("fold", lambda: guide if dense else layout.fold(guide))
        labelled = pipeline.LABELS(
            clock,
            self._put(values),
            self._put(np.int32(count)),
            self._put(folded),
            grid=self._grid,
            config=self.config,
        )
        labelled = jax.device_get(labelled)
        if dense:
            return labelled
        return ops.PixelLabels(*(layout.unfold(cells) for cells in labelled))


def _check_logits(non_finite: np.ndarray, classes: prompts.ClassList) -> None:
    """NaN must not reach an argmax, where it would win."""
    if non_finite.any():
        photo, worst = np.argwhere(non_finite)[0]
        raise SolverError(
            "S01",
            f"class {classes.titles[worst]!r} has {non_finite[photo, worst]} patches "
            f"with NaN or infinite logits (photo {photo} of the batch); the CLIP "
            "checkpoint overflows in this precision, use float32",
        )


def _check_maps(solved: pipeline.Discrepancy, config: SegmenterConfig) -> None:
    """A class that could not be solved has error NaN, and a map of zeros."""
    if np.isnan(solved.error).any() or not np.isfinite(solved.values).all():
        raise SolverError(
            "S03",
            f"mode {config.mode!r} has no solution: the affinity is not finite, has an "
            f"empty row or column, or epsilon = {config.epsilon} is too small for it. "
            "Half precision may overflow: use float32 or bfloat16. An epsilon of "
            "0.0125 or more suits every affinity",
        )


def _choose_classes(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surviving classes of each photo, padded to a bucket that all share.

    Padding repeats the first survivor: the solver meets nothing unusual in it, and the
    labels leave it out.
    """
    counts = active.sum(axis=1)
    bucket = next(size for size in _CLASS_BUCKETS if size >= counts.max())
    order = np.empty((len(active), bucket), np.int32)
    for row, survivors in zip(order, active, strict=True):
        indices = np.flatnonzero(survivors)
        row[:] = indices[0]
        row[: len(indices)] = indices
    return order, counts


def _parts(
    name_or_path: str | Path, clip: str | Path | None, attention: str | Path | None
) -> tuple[str | Path, str | Path]:
    """The CLIP and the attention checkpoint that are meant."""
    if str(name_or_path) in PRESETS:
        preset = PRESETS[str(name_or_path)]
    elif Path(name_or_path).is_dir():
        preset = (Path(name_or_path) / "clip", Path(name_or_path) / "diffusion")
    else:
        raise OptionError(
            "O05",
            f"{str(name_or_path)!r} is neither a folder nor a preset; presets: "
            f"{', '.join(PRESETS)}",
        )
    return clip or preset[0], attention or preset[1]


def _templates(config: SegmenterConfig) -> tuple[str, ...]:
    if config.templates == "imagenet":
        return IMAGENET_TEMPLATES
    if config.templates == "single":
        return ("a photo of a {}.",)
    return check_templates(config.templates)
