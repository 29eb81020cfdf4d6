"""Photos, drawn scenes and results: all work that needs the networks."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dslo_jax import images, scenes
from dslo_jax.errors import RequestError
from dslo_jax.images import Photo
from dslo_jax.kept import KeptPhoto
from dslo_jax.pipeline import forget_programs, num_compilations
from dslo_jax.pipeline.stages import Announce
from dslo_jax.segmentation import Segmentation
from dslo_jax.segmenter import Segmenter
from dslo_jax.serve import choices, views
from dslo_jax.serve.limits import Limits
from dslo_jax.serve.store import Store
from dslo_jax.serve.wishes import Click, Wish, classes_of, gone


SCENES = (19, 36, 12, 70, 1, 37, 46, 42)
"""The drawn scenes to choose from, by their seeds; they show much of the world."""

SCENE_SIZE = 256, 320
# A scene has one name: what draws "scene-9" must not be asked for "scene-09".
_SCENE = re.compile(r"scene-(0|[1-9][0-9]{0,3})")
_NAME = re.compile(r"[-_A-Za-z0-9]{16}")
_WARM_MODES = ("velocity", "path", "fused", "kl", "propagation")


@dataclass(frozen=True, eq=False)
class KeptResult:
    """A result that has a link.

    Attributes:
        segmentation: The result.
        photo: Name of its photo.
        words: The words as they were typed.
        options: The options of the request.
    """

    segmentation: Segmentation
    photo: str
    words: str
    options: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """Size of its arrays."""
        found = self.segmentation
        arrays = found.labels, found.discrepancy, found.pixels
        return sum(array.nbytes for array in arrays)


class Studio:
    """Keeps photos and results, and segments.

    Args:
        segmenter: The segmenter. One thread at a time may use it.
        limits: How much is kept and allowed.
    """

    def __init__(self, segmenter: Segmenter, limits: Limits):
        self.segmenter, self.limits = segmenter, limits
        self._photos: Store[KeptPhoto] = Store(limits.photos, limits.kept_bytes)
        self._results: Store[KeptResult] = Store(limits.results, limits.kept_bytes)
        self._drafts: Store[KeptResult] = Store(limits.drafts, limits.kept_bytes)
        self._with_features: list[KeptPhoto] = []
        self.scenes = [_described_scene(seed) for seed in SCENES]
        self.warming = ""

    def add_photo(self, content: bytes) -> dict[str, Any]:
        """Read an image file and keep the photo.

        Args:
            content: The image file.

        Returns:
            What the page needs to know of it.

        Raises:
            ImageError: It cannot be read.
        """
        photo = images.read_photo(content, max_pixels=self.limits.pixels)
        return self._keep(photo)

    def add_scene(self, seed: int) -> dict[str, Any]:
        """Draw a scene and keep it.

        Args:
            seed: The seed, 0 to 9999.
        """
        scene = scenes.draw_scene(seed, size=SCENE_SIZE)
        named = f"scene-{seed}"
        facts = self._keep(images.read_photo(scene.pixels), named)
        return facts | {"words": ", ".join(scenes.scene_names(scene.labels))}

    def photo(self, name: str) -> Photo:
        """A kept photo.

        Raises:
            RequestError: It is no longer kept, or never was (``V06``).
        """
        return self._kept_photo(name).photo

    def segment(self, wish: Wish, announce: Announce) -> dict[str, Any]:
        """Segment a photo, and keep the result.

        Args:
            wish: What to do.
            announce: Called as each stage begins.

        Returns:
            What the page needs to know of the result.

        Raises:
            DsloError: The photo cannot be segmented.
        """
        kept = self._kept_photo(wish.photo)
        self._make_room(kept)
        found = kept(wish.classes, announce=announce, **wish.options)
        result = KeptResult(found, wish.photo, wish.words, wish.options)
        store = self._drafts if wish.is_draft else self._results
        return views.summary(store.add(result, result.num_bytes), result, self.limits)

    def click(self, click: Click, announce: Announce) -> dict[str, Any]:
        """Find what belongs to a point.

        Args:
            click: What to do.
            announce: Called as each stage begins.

        Returns:
            The Markov map, how much of the photo is near, and notes.

        Raises:
            DsloError: The point is outside the photo, or there is no attention.
        """
        kept = self._kept_photo(click.photo)
        self._make_room(kept)
        point = click.x, click.y
        found = kept.prompt([point], announce=announce, **click.options)
        return views.click_facts(found)

    def result(self, name: str) -> KeptResult:
        """A result by its name.

        Raises:
            RequestError: It is no longer kept, or never was (``V06``).
        """
        found = None
        if _NAME.fullmatch(name):
            found = self._results.find(name) or self._drafts.find(name)
        if found is None:
            raise RequestError(
                "V06",
                "this result is no longer kept; the page keeps the last "
                f"{self.limits.results} results until dslo serve ends. Segment the "
                "photo again, and download what you want to keep",
            )
        return found

    def summary(self, name: str) -> dict[str, Any]:
        """What the page needs to know of a result.

        Raises:
            RequestError: It is no longer kept (``V06``).
        """
        return views.summary(name, self.result(name), self.limits)

    def warm_up(self) -> Iterator[tuple[str, Any]]:
        """What to do before the first request, so that it need not compile.

        Yields:
            The mode, and a function of ``announce`` that compiles its programs.
        """
        if not self.segmenter.config.discrepancy.needs_affinity:
            modes = [self.segmenter.config.discrepancy.name]
        else:
            first = self.segmenter.config.discrepancy.name
            modes = list(dict.fromkeys([first, *_WARM_MODES]))
        seed, words = self.scenes[0]["seed"], self.scenes[0]["words"]
        for mode in modes:
            classes = classes_of(words, self.limits)
            asked = Wish(f"scene-{seed}", classes, words, {"mode": mode}, True)

            def work(announce: Announce, asked: Wish = asked) -> None:
                def tell(stage: str, compiles: bool) -> None:
                    self.warming = f"{asked.options['mode']}: {stage}"
                    announce(stage, compiles)

                try:
                    self.segment(asked, tell)
                finally:
                    self.warming = ""

            yield mode, work

    def about(self) -> dict[str, Any]:
        """What the page needs to know before anything is segmented."""
        segmenter, limits = self.segmenter, self.limits
        config = segmenter.config
        model = segmenter.model_info(config)
        has_affinity = bool(segmenter.networks.affinity_names)
        is_diffusion = has_affinity and config.affinity.timestep > 0
        if config.discrepancy.needs_affinity:
            source = segmenter.networks.affinity(config.affinity)
            is_diffusion = "unet" in source.module.stages
        world = segmenter.world
        return {
            "model": None if model is None else views.short_name(model.name),
            "device": None if model is None else model.device,
            "mode": config.discrepancy.name,
            "modes": [
                {"name": name, "help": text}
                for name, text in choices.MODES.items()
                if has_affinity or name in ("kl", "logits")
            ],
            "choices": choices.described(config, is_diffusion=is_diffusion),
            "scenes": [
                {key: each[key] for key in ("seed", "words")} for each in self.scenes
            ],
            "known": [] if world is None else [names[0] for names in world.classes],
            "limits": {
                "bytes": limits.photo_bytes,
                "pixels": limits.pixels,
                "text": limits.text,
                "classes": limits.classes,
                "results": limits.results,
            },
        }

    def _keep(self, photo: Photo, name: str = "") -> dict[str, Any]:
        kept = self.segmenter.keep(photo)
        name = self._photos.add(kept, photo.pixels.nbytes, name)
        return {"photo": name, **views.photo_facts(photo, self.limits)}

    def _kept_photo(self, name: str) -> KeptPhoto:
        """A photo; that of a result may come back, and a scene is drawn again."""
        kept = self._photos.find(name)
        if kept is None:
            self._bring_back(name)
            kept = self._photos.find(name)
        if kept is None:
            raise gone(self.limits)
        return kept

    def _bring_back(self, name: str) -> None:
        for result in self._results.things():
            if result.photo == name:
                self._keep(result.segmentation.photo, name)
                return
        if found := _SCENE.fullmatch(name):
            self.add_scene(int(found[1]))

    def knows(self, name: str) -> bool:
        """Whether ``_kept_photo`` will find a photo; nothing is drawn or moved."""
        return (
            _SCENE.fullmatch(name) is not None
            or name in self._photos
            or any(result.photo == name for result in self._results.things())
        )

    def _make_room(self, kept: KeptPhoto) -> None:
        """Free programs, and what the networks saw in photos not used for long."""
        if num_compilations() > self.limits.programs:
            forget_programs()
        others = [each for each in self._with_features if each is not kept]
        keep = others[len(others) - self.limits.features + 1 :]
        for each in others:
            if each not in keep:
                each.forget()
        self._with_features = [*keep, kept]


def _described_scene(seed: int) -> dict[str, Any]:
    """A drawn scene, its small picture, and the words for what it shows."""
    scene = scenes.draw_scene(seed, size=SCENE_SIZE)
    small = np.ascontiguousarray(scene.pixels[::2, ::2])
    names = scenes.scene_names(scene.labels)
    return {"seed": seed, "words": ", ".join(names), "jpeg": views.to_jpeg(small)}
