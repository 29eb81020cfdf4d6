"""The segmenter: photos and lists of words to label maps."""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dslo_jax import images, prompts
from dslo_jax.config import SegmenterConfig
from dslo_jax.kept import KeptPhoto
from dslo_jax.loading import load_pair
from dslo_jax.model_info import ModelInfo
from dslo_jax.pairs import World, find_pair
from dslo_jax.pipeline import Networks, check_background
from dslo_jax.pipeline.stages import Announce, Clock
from dslo_jax.points import PointMaps, prompt_photo, with_velocity
from dslo_jax.segmentation import Segmentation
from dslo_jax.solvers import Discrepancy
from dslo_jax.stream import FailedPhoto, Stream, batch_size_for, warm_up
from dslo_jax.templates import find_templates


Classes = prompts.ClassList | Sequence[str | Sequence[str]]


class Segmenter:
    """Segments photos into classes named in plain words, without training.

    Args:
        networks: The sources of logits and affinities.
        config: Options of the method; default: ``SegmenterConfig()``.
        discrepancy: The discrepancy to solve for, instead of that of ``config``.
        announce: Called as each stage begins: its name, and whether it compiles first.
        world: All that the networks know, if results shall note what they do not.
        model: Tells what the networks are, for the results.

    Raises:
        OptionError: The discrepancy needs an affinity, or the logits need a proxy, and
            there is none (``O05``), or a network cannot use an option, such as the
            layers of the affinity or the size of a window (``O01``).
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
        model: Callable[[], ModelInfo] | None = None,
    ):
        self.networks = networks
        config = (config or SegmenterConfig()).with_options(discrepancy=discrepancy)
        self.config = self._checked(config)  # errors now, not at the first photo
        self._announce, self._model, self.world = announce, model, world

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "sd2+clip-b16",
        *,
        clip: str | Path | None = None,
        attention: str | Path | None = None,
        proxy: str | Path | None = None,
        mode: str | None = None,
        config: SegmenterConfig | None = None,
        discrepancy: Discrepancy | None = None,
        dtype: str = "auto",
        device: str = "auto",
        devices: int | str = 1,
        offline: bool = False,
        announce: Announce | None = None,
        **options: Any,
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
            proxy: Preset, folder or repository of a DINO or DINOv2, for logits with a
                ``clip_attention`` that needs a second network, such as
                ``"proxyclip"``. Other logits have no use for it, and it is not loaded
                for them.
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
            devices: How many devices share the photos of a batch, from ``device`` on:
                a number, or ``"all"`` of this process. With ``"2x4"``, 2 share the
                photos times 4 that share the classes; the columns of the affinity
                instead, if it has 16384 patches or more. A batch is padded to a
                multiple of the devices that share photos.
            offline: Whether to open no network connection.
            announce: Called as each stage begins, with its name and whether it
                compiles first.
            **options: Other options by their flat names, instead of those of
                ``config``, such as ``clip_attention="proxyclip"``.

        Returns:
            A segmenter. Its source of affinities is loaded when a discrepancy needs it
            for the first time, and its proxy when a ``clip_attention`` needs it.

        Raises:
            CheckpointError: A checkpoint is missing, damaged, or not of this kind.
            OptionError: An option is unknown or out of range.
            ClassListError: A template does not hold exactly one ``{}`` (``C05``).
            DeviceError: There is no such device, or there are not so many (``D02``).
        """
        pair = find_pair(name_or_path)
        world = pair.world if clip is None else None
        pair = pair.with_networks(clip=clip, attention=attention, proxy=proxy)
        options |= {} if mode is None else {"mode": mode}
        config = config or pair.config
        config = config.with_options(discrepancy=discrepancy, **options)
        find_templates(config.clip.templates)  # errors now, not after a download
        networks, model = load_pair(
            pair,
            name=str(name_or_path),
            dtype=dtype,
            device=device,
            devices=devices,
            offline=offline,
        )
        return cls(networks, config, announce=announce, model=model, world=world)

    def configured(
        self, *, discrepancy: Discrepancy | None = None, **options: Any
    ) -> SegmenterConfig:
        """The configuration of a call with these options (``OptionError``)."""
        config = self.config.with_options(discrepancy=discrepancy, **options)
        return self._checked(config)

    def model_info(self, config: SegmenterConfig) -> ModelInfo | None:
        """The networks that a result with these options is computed with.

        Returns:
            ``None`` if the segmenter was made of networks, not of names.
        """
        if self._model is None:
            return None
        return self._model().used(
            attention=config.discrepancy.needs_affinity,
            proxy=self.networks.logits.module.needs_proxy(config.clip.attention),
        )

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
                ``mode="path"`` or ``epsilon=0.05``; the networks stay loaded. Also
                ``time_stages``, as for ``stream``.

        Returns:
            The label map at the size of the photo, and the maps behind it.

        Raises:
            ImageError: The photo cannot be used.
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range.
            SolverError: The logits or the affinity have values that no solver can use.
        """
        options |= {"batch_size": 1, "discrepancy": discrepancy}
        return self.batch([image], classes, **options)[0]

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

        The last batch may be incomplete; it repeats its last photo, so that no further
        shape is compiled. The labels are the same as with one photo at a time. The
        first photo that fails ends the call; ``stream`` goes on.

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
        options |= {"batch_size": batch_size, "discrepancy": discrepancy}
        results = []
        with closing(self.stream(photos, classes, **options)) as stream:
            for result in stream:
                if isinstance(result, FailedPhoto):
                    raise result.error
                results.append(result)
        return results

    def stream(
        self,
        photos: Iterable[Any],
        classes: Classes,
        *,
        batch_size: int = 4,
        max_pixels: int = images.MAX_PIXELS,
        time_stages: bool | None = None,
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ) -> Generator[Segmentation | FailedPhoto, None, None]:
        """Segment any number of photos in bounded memory, and go on after failures.

        Photos are read in threads, and the networks run on the next batch, while the
        caller works with a result. Consecutive photos share a batch.

        Args:
            photos: As for one photo, in any mixture of sizes; also what
                ``images.find_photos`` returns. A generator is read as it is needed.
            classes: One entry per class: a name, or a list of synonyms.
            batch_size: As for ``batch``.
            max_pixels: Greatest number of pixels of a photo, checked before decoding.
            time_stages: Whether to wait for every stage on the device, to time it
                alone. By default GPUs and TPUs run a batch without waiting, and its
                time is that of the stage ``"batch"``. On a CPU it changes nothing.
            discrepancy: As for one photo.
            **options: As for one photo.

        Yields:
            For each photo, in the order of the photos: its result, or a
            ``FailedPhoto`` with the reason. Where a batch fails, for example because a
            photo is too large for the memory, each of its photos is tried alone.

        Raises:
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range.
        """
        config = self.configured(discrepancy=discrepancy, **options)
        listed = prompts.parse_classes(classes)
        check_background(config, listed.background)
        stream = Stream(
            self.networks,
            config,
            listed,
            batch_size=batch_size_for(photos, batch_size),
            time_stages=time_stages,
            max_pixels=max_pixels,
            announce=self._announce,
            world=self.world,
            model=self.model_info(config),
        )
        return stream.run(photos)

    def warm_up(
        self,
        classes: Classes,
        *,
        batch_size: int = 4,
        sizes: Iterable[tuple[int, int]] = ((512, 512),),
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ) -> None:
        """Compile what a stream will need, before the first photo.

        The programs are compiled from shapes alone; only the names are embedded. On
        GPUs and TPUs these are all programs of photos of these sizes, as long as no
        batch needs more room than is usual. On a CPU the program of an optimal path is
        left out, which depends on the results for a photo.

        Args:
            classes: As for ``stream``.
            batch_size: As for ``stream``.
            sizes: Height and width of photos. Photos of other sizes may need a few more
                programs of CLIP and of the labels.
            discrepancy: As for ``stream``.
            **options: As for ``stream``.

        Raises:
            ClassListError: The class list cannot be used.
            OptionError: An option is unknown or out of range, or a side is below 1
                (``O01``).
            DeviceError: The device has too little memory (``D01``).
        """
        warm_up(
            self.networks,
            self.configured(discrepancy=discrepancy, **options),
            prompts.parse_classes(classes),
            sizes,
            batch_size=batch_size,
            announce=self._announce,
            world=self.world,
        )

    def keep(self, image: Any) -> KeptPhoto:
        """Keep a photo with what the networks see in it, to try words and options.

        Each call of the kept photo computes only what its words and options change. So
        another mode, threshold or epsilon needs the solver and the labels alone.

        Args:
            image: As for one photo.

        Returns:
            A function of classes and options, like the segmenter itself.

        Raises:
            ImageError: The photo cannot be used.

        Example:
            >>> segmenter = Segmenter.from_pretrained("demo")
            >>> kept = segmenter.keep(np.zeros((64, 64, 3), np.uint8))
            >>> results = [kept(["sky"], threshold=tau) for tau in (0.2, 0.3)]
        """
        return KeptPhoto(
            self.networks,
            images.read_photo(image),
            lambda options: self._checked(self.config.with_options(**options)),
            model=self.model_info,
            world=self.world,
        )

    def prompt(
        self,
        image: Any,
        points: Any,
        *,
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ) -> PointMaps:
        """Find what belongs to points in a photo, such as clicks, without any words.

        Each point has a Markov map: how soon a chain that starts in its patch reaches
        every other patch. CLIP is not run.

        Args:
            image: As for one photo.
            points: Pixels ``(x, y)`` of the photo, in an upright position: x is the
                column and y the row, from 0 at the upper left corner.
            discrepancy: A ``MaximumVelocity``, instead of that of the segmenter.
            **options: As for one photo; the mode is always ``"velocity"``.

        Returns:
            The maps of all points, the nearest point of every pixel, and with
            ``masks`` the pixels that each point reaches within some steps.

        Raises:
            ImageError: The photo cannot be used.
            OptionError: There is no point (``O05``), one is outside the photo
                (``O01``) or no pair of numbers (``O03``), or an option is unknown or
                out of range.
            SolverError: The affinity has values that no solver can use (``S03``).
            DeviceError: The device has too little memory (``D01``).
        """
        config = self._checked(with_velocity(self.config, discrepancy, options))
        photo, clock = images.read_photo(image), Clock(self._announce)
        return prompt_photo(self.networks, photo, points, config, clock)

    def _checked(self, config: SegmenterConfig) -> SegmenterConfig:
        """Check a configuration, and fill in the layers of the affinity."""
        find_templates(config.clip.templates)
        self.networks.check(config)
        if not config.discrepancy.needs_affinity:
            return config
        affinity = self.networks.affinity(config.affinity).module.options
        return dataclasses.replace(config, affinity=affinity)
