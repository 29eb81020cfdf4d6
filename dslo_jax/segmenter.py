"""A photo and a list of words become a label map: where every other module meets."""

import dataclasses
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import checks, hub, images, ops, pipeline, prompts, solvers
from dslo_jax.attention import AffinitySource, downscaling_of, load_affinity
from dslo_jax.config import Mode, SegmenterConfig
from dslo_jax.devices import find_device, network_dtype
from dslo_jax.errors import OptionError
from dslo_jax.images import Photo
from dslo_jax.models.clip import Clip, load_clip
from dslo_jax.pairs import find_pair
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.stages import Announce, Clock, Static
from dslo_jax.templates import find_templates


Classes = prompts.ClassList | Sequence[str | Sequence[str]]
Guide = tuple[ops.GuideCells | np.ndarray, ops.CellLayout]


class Segmenter:
    """Segments photos into classes named in plain words, without training.

    Args:
        clip: Gives logits: cosines between patches and words.
        tokenizer: The tokenizer of ``clip``.
        affinity: Gives self-attention between patches; may be ``None`` for the modes
            ``"kl"`` and ``"logits"``, which use none.
        config: Every choice of the method.
        downscaling: Pixels per patch of the affinity that is left out: without one,
            the maps have the grid that it would have given them.
        announce: Called with the name of each stage as it begins, and whether it
            compiles first.

    Raises:
        OptionError: The mode needs an affinity and there is none.
    """

    def __init__(
        self,
        clip: Clip,
        tokenizer: Any,
        affinity: AffinitySource | None,
        config: SegmenterConfig | None = None,
        *,
        downscaling: int = 8,
        announce: Announce | None = None,
    ):
        self.config = config or SegmenterConfig()
        if affinity is not None:  # what it was built with is what happens
            self.config = dataclasses.replace(
                self.config,
                affinity_size=affinity.size,
                timestep=affinity.timestep,
                affinity_layers=affinity.layers,
                affinity_temperature=affinity.temperature,
            )
        elif self.config.needs_affinity:
            raise OptionError(
                "O05", f"mode {self.config.mode!r} needs an attention checkpoint"
            )
        self._templates = find_templates(self.config.templates)
        self._announce = announce
        self._tokenizer = tokenizer
        self._patch = clip.config.vision.patch_size
        self._device = next(iter(clip.logit_scale.get_value().devices()))
        self._clip = self._split(clip)
        used = affinity if self.config.needs_affinity else None
        self._affinity = None if used is None else self._split(used)
        self._encoding, self._attending = pipeline.stages_of(used)
        side = self.config.affinity_size // downscaling
        self._grid = (side, side) if affinity is None else affinity.grid
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
            name_or_path: A pair (one of ``PAIRS`` such as ``"sd2+clip-b16"``, or
                ``"demo"``, which comes with this package and knows its own drawn world
                alone) or a folder with the sub-folders ``clip`` and ``diffusion``.
            clip: A CLIP folder or repository instead of the pair's.
            attention: Another source of affinities instead of the pair's: a diffusion
                pipeline, DINO, DINOv2 or CLIP, as a preset, folder or repository; the
                side of its patches must divide ``config.affinity_size``.
            mode: Overrides ``config.mode``.
            config: Every choice of the method, instead of those that suit the pair
                (``find_pair(name_or_path).config``).
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
        pair = find_pair(name_or_path)
        attention = attention or pair.attention
        config = config or pair.config
        if mode is not None:
            config = dataclasses.replace(config, mode=mode)
        target = find_device(device)
        precision = network_dtype(dtype, target)
        half = precision.itemsize < 4
        clip_place = hub.resolve(clip or pair.clip, "clip", offline=offline, half=half)
        with jax.default_device(target):
            affinity = None
            if config.needs_affinity:
                affinity = load_affinity(
                    hub.resolve(attention, "attention", offline=offline, half=half),
                    dtype=precision,
                    size=config.affinity_size,
                    timestep=config.timestep,
                    layers=config.affinity_layers,
                    temperature=config.affinity_temperature,
                )
            network = load_clip(clip_place, dtype=precision)
        vocab_size = network.config.text.vocab_size
        tokenizer = prompts.load_tokenizer(
            hub.find_tokenizer(clip_place, vocab_size, offline=offline)
        )
        return cls(
            network,
            tokenizer,
            affinity,
            config,
            downscaling=downscaling_of(attention),
            announce=announce,
        )

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
        return self.batch([image], classes, batch_size=1)[0]

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
            batch_size: Photos at once; each holds two arrays of the size of an
                affinity (64 MiB each at 512 px).

        Returns:
            One result per photo, in the order of the photos.

        Raises:
            ImageError: A photo cannot be used.
            ClassListError: The class list cannot be used.
            SolverError: The networks gave values that no solver can use.
            DeviceError: The device has too little memory.
        """
        if batch_size < 1:
            raise OptionError("O01", f"batch_size = {batch_size}; expected at least 1")
        parsed = prompts.parse_classes(classes)
        read = [
            photo if isinstance(photo, Photo) else images.read_photo(photo)
            for photo in photos
        ]
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
        sources = self._prepare(
            clock, self._features(clock, padded), self._embed(clock, classes), classes
        )
        checks.check_logits(jax.device_get(sources.non_finite), classes, photos)
        order, counts = checks.choose_classes(jax.device_get(sources.active))
        affinity = self._attend(clock, self._encode(clock, padded))
        solved = self._solve(clock, sources, order, affinity)
        labelled = [
            self._label(clock, guide, solved.values[i], int(counts[i]))
            for i, guide in enumerate(self._fold(clock, photo) for photo in photos)
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

    # The steps of a batch: apart, so that ``evaluation`` can share them among many.

    def _prepare(
        self, clock: Clock, features: Array, text: Array, classes: prompts.ClassList
    ) -> pipeline.Sources:
        """From features of photos and names to what the solver starts from."""
        return pipeline.SOURCES(
            clock,
            features,
            text,
            self._put(np.asarray(classes.class_of_name, np.int32)),
            num_classes=len(classes),
            grid=self._grid,
            early_rejection=self.config.early_rejection,
            rejection_share=self.config.rejection_share,
            suppression=self.config.suppression,
            threshold=self.config.suppression_threshold,
            scale=self.config.source_scale,
        )

    def _clip_size(self, photo: Photo) -> tuple[int, int]:
        size = photo.pixels.shape[:2]
        return images.short_side_size(size, self.config.short_side, self._patch)

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
            self._text.update(zip(new, embedded, strict=True))
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

    def _encode(self, clock: Clock, photos: list[Photo]) -> Any:
        """What the source of affinities makes of photos before it attends."""
        if self._affinity is None:
            return None
        graph, state = self._affinity
        size = (self.config.affinity_size,) * 2
        pixels = clock.time("resize", self._resized, photos, size, "area")
        return self._encoding(clock, state, pixels, graph=graph)

    def _attend(self, clock: Clock, encoded: Any) -> Array | None:
        if self._affinity is None:
            return None
        graph, state = self._affinity
        return self._attending(clock, state, encoded, graph=graph)

    def _solve(
        self,
        clock: Clock,
        sources: pipeline.Sources,
        order: np.ndarray,
        affinity: Array | None,
    ) -> pipeline.Discrepancy:
        """The maps of the classes that ``order`` names, on the host."""
        values = sources.logits if self.config.mode == "logits" else sources.source
        solve = partial(
            pipeline.DISCREPANCY,
            clock,
            pipeline.CHOSEN(clock, values, self._put(order)),
            affinity,
            config=self.config.of_solver(),
            reading=self._reading(sources, order),
        )
        solved = jax.device_get(solve(domain="kernel"))
        unsolved = np.isnan(solved.error).any(axis=1)
        if unsolved.any() and self.config.needs_path:
            # Logarithms take as long to compile as all the rest, and few need them.
            with_logs = jax.device_get(solve(domain="auto"))
            solved = pipeline.choose_photos(unsolved, with_logs, solved)
        checks.check_maps(solved, self.config)
        return solved

    def _resized(
        self, photos: list[Photo], size: tuple[int, int], method: images.ResizeMethod
    ) -> Array:
        resized = [images.resize_photo(p.pixels, size, method=method) for p in photos]
        return self._put(np.stack(resized))

    def _split(self, module: nnx.Module) -> tuple[Static, nnx.State]:
        """The graph and the parameters of a module, tied to this device."""
        graph, state = nnx.split(module)
        return Static(graph), self._put(state)

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self._device)

    def _reading(self, sources: pipeline.Sources, order: np.ndarray) -> solvers.Reading:
        if not self.config.needs_path:
            return solvers.Reading()
        return checks.choose_reading(sources, order, self._device.platform)

    def _fold(self, clock: Clock, photo: Photo) -> Guide:
        """The photo as ``_label`` needs it: by cells, or as it is."""
        guide = photo.pixels.astype(np.float32) / 255.0
        layout = ops.cell_layout(guide.shape[:2], self._grid)
        if self.config.upsampling == "dense":
            return guide, layout
        return clock.time("fold", layout.fold, guide), layout

    def _label(
        self, clock: Clock, guide: Guide, values: Array | np.ndarray, count: int
    ) -> ops.PixelLabels:
        """Row of ``values`` that wins each pixel of the photo; the first ``count``."""
        folded, layout = guide
        labelled = pipeline.LABELS(
            clock,
            self._put(values),
            self._put(np.int32(count)),
            self._put(folded),
            grid=self._grid,
            upsampling=self.config.upsampling,
            spatial_variance=self.config.spatial_variance,
            range_variance=self.config.range_variance,
        )
        if not isinstance(folded, ops.GuideCells):
            return jax.device_get(labelled)
        return ops.PixelLabels(*map(layout.unfold, jax.device_get(labelled)))
