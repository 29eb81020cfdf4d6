"""The whole method as one pure function: photos and features of names to labels.

The functions are those of the pipeline. What its host decides between two programs is
decided here before the photos are known, or within the program: there is room for all
classes, a path reads all rows of the affinity, and all pixels are computed.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, UInt8

from dslo_jax import ops, tuning
from dslo_jax.config import SegmenterConfig
from dslo_jax.logits import Windows, window_features
from dslo_jax.pipeline import Networks, check_background, checks, programs
from dslo_jax.pipeline.networks import OnDevice
from dslo_jax.pipeline.sequences import photo_size
from dslo_jax.solvers import Reason, Solution
from dslo_jax.stablehlo.labels import label_photos
from dslo_jax.stablehlo.resizing import resize_photos
from dslo_jax.stablehlo.solver import solve_batch


REJECTED = -1
"""The reason of a class that early rejection dropped, beside those of ``Reason``."""

UNKNOWN = -1
"""The label of every pixel of a photo that could not be solved."""


class Bucket(NamedTuple):
    """The sizes that a program is made for.

    Attributes:
        size: Height and width of the photos in pixels.
        classes: Number of classes.
        batch: Number of photos.
    """

    size: tuple[int, int]
    classes: int
    batch: int


class WholeStep:
    """Photos and features of names to labels, for one configuration and one bucket.

    Args:
        networks: The networks.
        config: Options of the method.
        bucket: The sizes.
        background: Index of the background class, if there is one.

    Raises:
        OptionError: There is a background threshold and no such class (``O05``).
    """

    def __init__(
        self,
        networks: Networks,
        config: SegmenterConfig,
        bucket: Bucket,
        background: int | None = None,
    ):
        check_background(config, background)
        self._config, self._bucket, self._background = config, bucket, background
        self._grid = networks.grid(config.affinity)
        source = networks.source_of_logits(config.clip.attention)
        self._networks = {"clip": source}
        if config.discrepancy.needs_affinity:
            self._networks["attention"] = networks.affinity(config.affinity)

    @property
    def parameters(self) -> dict[str, Array]:
        """All parameters by their names, which begin with ``clip.`` or ``attention.``.

        They stay on their device.
        """
        return {
            name: leaf
            for kind, network in self._networks.items()
            for name, leaf in _named(kind, network.state).items()
        }

    def __call__(
        self, parameters: Mapping[str, Array], inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Compute the labels of a batch.

        Args:
            parameters: The parameters; those that no operation reads may be missing.
            inputs: ``"pixels"``, ``"text"`` and ``"class_of_name"``.

        Returns:
            ``"labels"``, ``"tied"``, ``"maps"``, ``"reason"``, ``"error"`` and
            ``"num_steps"``.
        """
        discrepancy, pixels = self._config.discrepancy, inputs["pixels"]
        photos = self._features(parameters, pixels)
        logits = programs.LOGITS.function(
            photos,
            inputs["text"],
            inputs["class_of_name"],
            num_classes=self._bucket.classes,
            grid=self._grid,
        )
        given = programs.SOURCES.function(logits, options=self._config.source)
        values = given.logits if discrepancy.takes_logits else given.source
        classes = self._bucket.classes
        chosen, order, counts = programs.COMPACTED.function(
            values, given.active, size=checks.class_bucket(classes, classes)
        )
        real = jnp.arange(order.shape[1], dtype=jnp.int32)[None] < counts[:, None]
        affinity = self._affinity(parameters, pixels)
        solution = solve_batch(discrepancy, chosen, affinity, real)
        is_solved = jnp.isfinite(solution.value).all(axis=2)
        is_solved &= ~jnp.isnan(solution.error)
        known = (is_solved | ~real).all(axis=1) & (given.non_finite == 0).all(axis=1)
        found = self._label(solution.value, counts, pixels)
        labels, tied = _renumbered(jnp.asarray(found.labels), order), found.tied
        if self._config.background.is_used:
            assert self._background is not None  # it was checked
            unsure = self._unsure(photos, inputs["text"])
            labels = jnp.where(unsure, self._background or 0, labels)
            tied &= ~unsure
        return {
            "labels": jnp.where(known[:, None, None], labels, UNKNOWN),
            "tied": tied & known[:, None, None],
            **self._by_class(solution, given),
        }

    def _features(
        self, parameters: Mapping[str, Array], pixels: UInt8[Array, "batch h w 3"]
    ) -> programs.PhotoFeatures:
        options, network = self._config.clip, self._network("clip", parameters)
        sides, output = self._networks["clip"].module.cuts(options.attention)
        sizes = [photo_size(self._bucket.size, options, side) for side in sides]
        cuts = [
            _cut(resize_photos(pixels, size, method=options.resample), side)
            for size, side in zip(sizes, sides, strict=True)
        ]
        windows = Windows.of(options, sides)

        def see(patches: ops.Patches, *proxy: ops.Patches) -> Array:
            return network.features(patches, options.attention, *proxy)

        def of_one(*cuts: ops.Patches) -> Float[Array, "patches channels"]:
            """The features of a photo, whatever the others are."""
            return see(*jax.tree.map(lambda leaf: leaf[None], cuts))[0]

        def slide(platform: str) -> Array:
            assert windows is not None
            together = tuning.windows_together(platform)
            placed = windows._replace(output=output, together=together)
            return window_features(see, cuts, placed)

        grids = [
            (h // side, w // side) for (h, w), side in zip(sizes, sides, strict=True)
        ]
        if windows and windows.are_several(grids):
            features = tuning.by_platform(
                cpu=partial(slide, "cpu"), other=partial(slide, "")
            )
        else:
            features = jax.vmap(of_one)(*cuts)
        return programs.PhotoFeatures((features,), jnp.asarray(cuts[output].grid))

    def _unsure(
        self, photos: programs.PhotoFeatures, text: Float[Array, "names channels"]
    ) -> Bool[Array, "batch height width"]:
        """The pixels whose greatest probability is below the threshold."""
        options = self._config.background
        sure = programs.CONFIDENCE.function(
            photos, text, scale=options.scale, grid=self._grid
        )
        pixels = ops.resize(sure.reshape(-1, *self._grid), self._bucket.size)
        return pixels < options.threshold

    def _affinity(
        self, parameters: Mapping[str, Array], pixels: UInt8[Array, "batch h w 3"]
    ) -> Float[Array, "batch patches patches"] | None:
        if "attention" not in self._networks:
            return None
        side = self._config.affinity.size
        squares = resize_photos(pixels, (side, side), method="area")
        network = self._network("attention", parameters)
        return network.attend(network.encode(_unit_range(squares)))

    def _network(self, kind: str, parameters: Mapping[str, Array]) -> Any:
        """A network with parameters in its place."""
        network: OnDevice = self._networks[kind]
        leaves = [
            # No result depends on one that is missing.
            parameters.get(name, jnp.zeros(leaf.shape, leaf.dtype))
            for name, leaf in _named(kind, network.state).items()
        ]
        state = jax.tree.unflatten(jax.tree.structure(network.state), leaves)
        return nnx.merge(network.graph.value, state)

    def _label(
        self,
        values: Float[Array, "batch active patches"],
        counts: Int32[Array, " batch"],
        pixels: UInt8[Array, "batch h w 3"],
    ) -> ops.PixelLabels:
        options = self._config.upsampling
        if options.upsampling != "dense":
            return label_photos(values, counts, pixels, self._grid, options)
        label = partial(
            programs.DENSE_LABELS.function, grid=self._grid, options=options
        )
        return jax.lax.map(
            lambda photo: label(*photo), (values, counts, _unit_range(pixels))
        )

    def _by_class(
        self, solution: Solution, given: programs.SolverInput
    ) -> dict[str, Array]:
        """Maps and status in the order of the classes."""
        active = given.active
        place = jnp.cumsum(active, axis=1, dtype=jnp.int32) - 1
        place = jnp.clip(place, 0, solution.error.shape[1] - 1)

        def of_class(rows: Array, rejected: int | float) -> Array:
            shape = (*place.shape, *[1] * (rows.ndim - 2))
            taken = jnp.take_along_axis(rows, place.reshape(shape), axis=1)
            return jnp.where(active.reshape(shape), taken, rejected)

        maps = of_class(solution.value, -jnp.inf)
        is_finite = given.non_finite == 0
        reason = of_class(solution.reason, REJECTED)
        return {
            "maps": maps.reshape(*maps.shape[:2], *self._grid),
            "reason": jnp.where(is_finite, reason, Reason.SOURCE_NOT_FINITE.value),
            "error": jnp.where(is_finite, of_class(solution.error, 0), jnp.nan),
            "num_steps": of_class(solution.num_steps, 0),
        }


def _named(kind: str, state: nnx.State) -> dict[str, Array]:
    """The parameters of a network by the names of the program."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {f"{kind}.{_name(path)}": leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    text = jax.tree_util.keystr(path, simple=True, separator=".")
    return text.removesuffix(".value")


def _unit_range(pixels: UInt8[Array, "*axes"]) -> Float[Array, "*axes"]:
    return pixels.astype(jnp.float32) / 255.0


def _cut(photos: UInt8[Array, "batch height width 3"], side: int) -> ops.Patches:
    """Photos as sequences of patches, as ``ops.cut_patches`` cuts one on the host.

    The sequences are as long as the photos: all have the same size.
    """
    batch, height, width, _ = photos.shape
    rows, columns = height // side, width // side
    cells = photos.reshape(batch, rows, side, columns, side, 3).swapaxes(2, 3)
    grid = jnp.tile(jnp.array([[rows, columns]], jnp.int32), (batch, 1))
    return ops.Patches(_unit_range(cells.reshape(batch, -1, side, side, 3)), grid)


def _renumbered(
    rows: Int32[Array, "batch h w"], order: Int32[Array, "batch active"]
) -> Int32[Array, "batch h w"]:
    """The entry of ``order`` for each row, without a gather of single numbers."""
    number = jnp.arange(order.shape[1], dtype=jnp.int32)
    is_row = rows[..., None] == number[None, None, None]
    return jnp.sum(jnp.where(is_row, order[:, None, None], 0), axis=3)
