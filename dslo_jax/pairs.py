"""Pairs of a CLIP and a source of affinities, and the options that suit them."""

import os
from pathlib import Path
from typing import NamedTuple

from dslo_jax import scenes
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError, brief, did_you_mean


class World(NamedTuple):
    """All that networks know, where that is far less than any photo and any word.

    Attributes:
        classes: The names of every class that they were trained on.
        config: Options for telling whether a photo is of this world. They are fixed,
            because ``least_lead`` was measured with them.
        least_lead: The mean lead (``small_world.mean_leads``) of a photo of this world,
            or more.
    """

    classes: tuple[tuple[str, ...], ...]
    config: SegmenterConfig
    least_lead: float


class Pair(NamedTuple):
    """A CLIP and a source of affinities that are known to work together.

    Attributes:
        clip: Name or folder of the CLIP, for ``hub.resolve``.
        attention: Name or folder of the source of affinities, for ``hub.resolve``.
        config: The options that suit them; a user may choose others.
        world: All that they know; None for networks that were trained on photos and
            words of all kinds.
        proxy: Name or folder of a DINO or DINOv2, for ``hub.resolve``. Only a
            ``clip_attention`` with a proxy needs it.
    """

    clip: str | Path
    attention: str | Path
    config: SegmenterConfig = SegmenterConfig()
    world: World | None = None
    proxy: str | Path | None = None

    def with_networks(self, **networks: str | Path | None) -> "Pair":
        """The pair with other networks, where one is given."""
        return self._replace(**{name: n for name, n in networks.items() if n})


# Sizes that give each source 64 x 64 patches; the paper does not state any.
PAIRS = {
    "sd2+clip-b16": Pair("clip-b16", "sd2-base"),
    "sd2+clip-l14": Pair("clip-l14", "sd2-base"),
    "dino+clip-b16": Pair("clip-b16", "dino-b8", SegmenterConfig.of(affinity_size=512)),
    "dinov2+clip-b16": Pair(
        "clip-b16", "dinov2-b14", SegmenterConfig.of(affinity_size=896)
    ),
    "dinov2-reg+clip-b16": Pair(
        "clip-b16", "dinov2-reg-b14", SegmenterConfig.of(affinity_size=896)
    ),
    "clip+clip-b16": Pair(
        "clip-b16", "clip-b16", SegmenterConfig.of(affinity_size=1024)
    ),
}
# Folders that have a short name because they come with this package.
BUNDLED = {"demo": Path(__file__).parent / "demo" / "checkpoint"}
CONFIG_NAME = "segmenter.toml"


def find_pair(name_or_path: str | Path) -> Pair:
    """Find the pair of a name or a folder, without loading it.

    Args:
        name_or_path: One of ``PAIRS`` such as ``"sd2+clip-b16"``, the bundled
            ``"demo"``, or a folder with the sub-folders ``clip`` and ``diffusion``. The
            folder may have a ``segmenter.toml`` with the options that suit it, and a
            DINO in ``dino``.

    Returns:
        The pair.

    Raises:
        OptionError: There is no such name and no such folder (``O05``), or the
            ``segmenter.toml`` cannot be used (``O01`` ... ``O04``).
    """
    name = str(name_or_path)
    if name in PAIRS:
        return PAIRS[name]
    place = BUNDLED.get(name, os.path.expanduser(name))
    if not os.path.isdir(place):
        known = [*PAIRS, *BUNDLED]
        hint = did_you_mean(name, known, then=f"pairs: {', '.join(known)}")
        raise OptionError(
            "O05", f"{brief(name)} is neither a folder nor a known pair; {hint}"
        )
    folder, config = Path(place), SegmenterConfig()
    if (folder / CONFIG_NAME).exists():
        config = SegmenterConfig.from_toml(folder / CONFIG_NAME)
    world = _drawn_world(config) if name in BUNDLED else None
    proxy = folder / "dino"
    return Pair(
        folder / "clip",
        folder / "diffusion",
        config,
        world,
        proxy if proxy.is_dir() else None,
    )


def _drawn_world(config: SegmenterConfig) -> World:
    """The world of the bundled networks.

    A mean lead below 0.14 was measured for 0.5 % of 400 drawings (1.5 to 3 % after JPEG
    compression, 1 % at half or double the side), 95 % of 19 photographs, 84 % of their
    crops, and all of 60 pictures of noise; see the card of the networks.
    """
    return World(
        classes=tuple(each.names for each in scenes.CLASSES),
        config=config.with_options(templates="single"),
        least_lead=0.14,
    )
