"""The segmenter: photos and lists of words to label maps."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from dslo_jax import hub, images, prompts
from dslo_jax.attention import (
    AffinityOptions,
    AffinitySource,
    downscaling_of,
    load_affinity,
)
from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import find_device, network_dtype
from dslo_jax.errors import OptionError
from dslo_jax.images import Photo
from dslo_jax.logits import load_logits
from dslo_jax.pairs import World, find_pair
from dslo_jax.pipeline import Batch, Networks, clip_size
from dslo_jax.pipeline.stages import Announce, Clock
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.small_world import world_notes
from dslo_jax.solvers import Discrepancy
from dslo_jax.templates import find_templates


Classes = prompts.ClassList | Sequence[str | Sequence[str]]


class Segmenter:
    """Segments photos into classes named in plain words, without training.

    Args:
        networks: The sources of logits and affinities.
        config: Options of the method; default: ``SegmenterConfig()``.
        discrepancy: The discrepancy to solve for, instead of that of ``config``.
        announce: Called as each stage begins, with its name and whether it compiles
            first.
        world: All that the networks know, if results shall note what they do not.

    Raises:
        OptionError: The discrepancy needs an affinity and there is none (``O05``), or
            the network cannot use an option of the affinity (``O01``).
        ClassListError: A template does not hold exactly one ``{}`` (``C05``).
    """

    def __init__(
        self,
        networks: Networks,
        config: SegmenterConfig | None = None,
        *,
        discrepancy: Discrepancy | None = None,
        announce: Announce | None = None,
        world: World | None = None,
    ):
        self.networks = networks
        self.config = config or SegmenterConfig()
        if discrepancy is not None:
            self.config = self.config.with_options(discrepancy=discrepancy)
        self.config = self._checked(self.config)  # errors now, not at the first photo
        self._announce = announce
        self._world = world

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "sd2+clip-b16",
        *,
        clip: str | Path | None = None,
        attention: str | Path | None = None,
        mode: str | None = None,
        config: SegmenterConfig | None = None,
        discrepancy: Discrepancy | None = None,
        dtype: str = "auto",
        device: str = "auto",
        offline: bool = False,
        announce: Announce | None = None,
    ) -> "Segmenter":
        """Load the networks.

        Args:
            name_or_path: Name of a pair in ``PAIRS``, such as ``"sd2+clip-b16"``;
                ``"demo"`` for the bundled networks, which know only their own drawn
                world; or a folder with the sub-folders ``clip`` and ``diffusion``.
            clip: Folder, file or repository of a CLIP, instead of the pair's.
            attention: Preset, folder or repository of a source of affinities (a
                diffusion pipeline, DINO, DINOv2 or CLIP), instead of the pair's. Its
                patch size must divide ``config.affinity.size``.
            mode: Name of the discrepancy, instead of that of ``config``.
            config: Options of the method; default: those that suit the pair
                (``find_pair(name_or_path).config``).
            discrepancy: The discrepancy to solve for, instead of that of ``config``:
                one of ``solvers``, or your own.
            dtype: Precision of the networks: ``"float32"``, ``"bfloat16"``,
                ``"float16"``, or ``"auto"`` for float32 on a CPU and bfloat16
                elsewhere. The solvers always use float32.
            device: ``"auto"``, ``"cpu"``, ``"gpu"`` or ``"tpu"``; ``"gpu:1"`` is the
                second GPU.
            offline: Whether to open no network connection.
            announce: Called as each stage begins, with its name and whether it
                compiles first.

        Returns:
            A segmenter. Its source of affinities is loaded when a discrepancy needs it
            for the first time.

        Raises:
            CheckpointError: A checkpoint is missing, damaged, or not of this kind.
            OptionError: An option is unknown or out of range.
            ClassListError: A template does not hold exactly one ``{}`` (``C05``).
            DeviceError: There is no such device (``D02``).
        """
        pair = find_pair(name_or_path)
        place = attention or pair.attention
        chosen = {} if mode is None else {"mode": mode}
        config = config or pair.config
        config = config.with_options(discrepancy=discrepancy, **chosen)
        target = find_device(device)
        precision = network_dtype(dtype, target)
        half = precision.itemsize < 4

        def load_attention(options: AffinityOptions) -> AffinitySource:
            found = hub.resolve(place, "attention", offline=offline, half=half)
            with jax.default_device(target):
                return load_affinity(found, dtype=precision, options=options)

        clip_place = hub.resolve(clip or pair.clip, "clip", offline=offline, half=half)
        with jax.default_device(target):
            logits = load_logits(clip_place, dtype=precision)
        tokenizer = prompts.load_tokenizer(
            hub.find_tokenizer(clip_place, logits.vocab_size, offline=offline)
        )
        networks = Networks(
            logits,
            tokenizer,
            {"": load_attention},
            downscaling=downscaling_of(place),
        )
        world = pair.world if clip is None else None
        return cls(networks, config, announce=announce, world=world)

    def __call__(
        self,
        image: Any,
        classes: Classes,
        *,
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ) -> Segmentation:
        """Segment one photo.

        Args:
            image: A path, a Pillow image, or an array: uint8 or float in [0, 1], RGB
                or grey.
            classes: One entry per class: a name, or a list of synonyms.
            discrepancy: The discrepancy to solve for, in this call.
            **options: Other options for this call, by their flat names, such as
                ``mode="path"`` or ``epsilon=0.05``. The networks stay loaded.

        Returns:
            The label map at the size of the photo, and the maps behind it.

        Raises:
            ImageError: The photo cannot be used.
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range.
            SolverError: The logits or the affinity have values that no solver can use.
        """
        return self.batch(
            [image], classes, batch_size=1, discrepancy=discrepancy, **options
        )[0]

    def batch(
        self,
        photos: Iterable[Any],
        classes: Classes,
        *,
        batch_size: int = 4,
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ) -> list[Segmentation]:
        """Segment many photos, ``batch_size`` at once on the device.

        Photos that have the same size for CLIP share a batch. An incomplete batch
        repeats its last photo, so that no further shape is compiled. The labels are the
        same as with one photo at a time.

        Args:
            photos: As for one photo, in any mixture of sizes.
            classes: One entry per class: a name, or a list of synonyms.
            batch_size: Photos at once. Each needs two arrays of the size of an affinity
                (64 MiB each at 512 px).
            discrepancy: As for one photo.
            **options: As for one photo.

        Returns:
            One result per photo, in the order of the photos.

        Raises:
            ImageError: A photo cannot be used.
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range.
            SolverError: The logits or the affinity have values that no solver can use.
            DeviceError: The device has too little memory (``D01``).
        """
        if batch_size < 1:
            raise OptionError("O01", f"batch_size = {batch_size}; expected at least 1")
        config = self._checked(
            self.config.with_options(discrepancy=discrepancy, **options)
        )
        parsed = prompts.parse_classes(classes)
        read = [
            photo if isinstance(photo, Photo) else images.read_photo(photo)
            for photo in photos
        ]
        patch = self.networks.logits.module.patch_size
        groups: dict[tuple[int, int], list[int]] = {}
        for index, photo in enumerate(read):
            groups.setdefault(clip_size(photo, config, patch), []).append(index)
        results: dict[int, Segmentation] = {}
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                chunk = group[start : start + batch_size]
                chosen = [read[index] for index in chunk]
                done = self._segment(chosen, parsed, batch_size, config)
                results.update(zip(chunk, done, strict=True))
        return [results[index] for index in range(len(read))]

    def _checked(self, config: SegmenterConfig) -> SegmenterConfig:
        """Check a configuration, and fill in the layers of the affinity."""
        find_templates(config.clip.templates)
        if not config.discrepancy.needs_affinity:
            return config
        affinity = self.networks.affinity(config.affinity).module.options
        return dataclasses.replace(config, affinity=affinity)

    def _segment(
        self,
        photos: list[Photo],
        classes: prompts.ClassList,
        batch_size: int,
        config: SegmenterConfig,
    ) -> list[Segmentation]:
        """Segment one batch of photos that have the same size for CLIP."""
        clock = Clock(self._announce)
        batch = Batch(self.networks, photos, classes, size=batch_size, clock=clock)
        solved = batch.solved(config)
        labelled = [batch.labelled(config, index) for index in range(len(photos))]
        notes = [classes.notes] * len(photos)
        if self._world is not None:
            foreign = world_notes(self._world, batch)
            notes = [classes.notes + each for each in foreign]
        return [
            assemble(
                photo,
                classes.titles,
                solved.order[i, : solved.counts[i]],
                jax.tree.map(lambda leaf, i=i: leaf[i], solved.solution),
                labelled[i],
                grid=batch.grid(config),
                timings=clock.timings,
                config=config,
                notes=notes[i],
            )
            for i, photo in enumerate(photos)
        ]
