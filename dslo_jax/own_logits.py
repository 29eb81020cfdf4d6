"""Segmentation from given logits and self-attention, without our networks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dslo_jax import images
from dslo_jax.config import SegmenterConfig
from dslo_jax.images import Photo
from dslo_jax.pipeline import Placement, Steps, check_background
from dslo_jax.pipeline.checks import class_bucket
from dslo_jax.prompts import ClassList, parse_classes
from dslo_jax.segmentation import Segmentation, assemble
from dslo_jax.solvers import Discrepancy
from dslo_jax.solvers.contract import check_solve


def segment_logits(
    logits: Any,
    affinity: Any | None,
    photos: Any,
    *,
    classes: Sequence[str] | None = None,
    config: SegmenterConfig | None = None,
    discrepancy: Discrepancy | None = None,
    **options: Any,
) -> Segmentation | list[Segmentation]:
    """Turn logits and an affinity into labels: the steps after the networks.

    The steps are those of ``Segmenter``, and run in the same compiled programs on the
    default device of JAX.

    Args:
        logits: Logit of every class in every patch; the greater, the better the class
            fits. ``[classes, height, width]``, or ``[batch, classes, height, width]``,
            as an array, nested lists or anything else that NumPy reads.
        affinity: Self-attention between the patches, which are counted row by row:
            ``[patches, patches]`` with ``patches = height * width``, or with a batch
            axis before. ``None`` if the discrepancy needs none.
        photos: The photo, or a list with one photo for each entry of the batch: a path,
            a Pillow image or an array. The labels have its size, and the upsampling
            uses its colours.
        classes: Names of the classes; default: ``"0"``, ``"1"``, ... A background
            threshold needs one called ``"background"``; the probabilities are then
            those of the classes, because names are not known.
        config: Options of the method; those of CLIP and of the affinity are not used.
        discrepancy: The discrepancy to solve for, instead of that of ``config``.
        **options: Other options by their flat names, such as ``mode="path"``.

    Returns:
        The result of the photo, or a list of results for a batch.

    Raises:
        ValueError: The shapes do not fit each other, a value is no number, or the
            affinity is missing.
        ImageError: A photo cannot be used.
        ClassListError: The names are no list in an order, or one is blank (``C..``).
        OptionError: An option is unknown or out of range, or a discrepancy of one's own
            does not return what it should (``O10``).
        SolverError: The logits or the affinity have values that no solver can use.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.random((3, 8, 8), np.float32)
        >>> affinity = np.full((64, 64), 1 / 64, np.float32)
        >>> photo = np.zeros((32, 48, 3), np.uint8)
        >>> result = segment_logits(logits, affinity, photo, mode="path")
        >>> result.labels.shape
        (32, 48)
    """
    config = (config or SegmenterConfig()).with_options(
        discrepancy=discrepancy, **options
    )
    logits = _as_array("logits", logits)
    affinity = None if affinity is None else _as_array("affinity", affinity)
    single = logits.ndim == 3
    if single:
        logits, photos = logits[None], [photos]
        affinity = None if affinity is None else affinity[None]
    listed = None if classes is None else parse_classes(classes, allow_duplicates=True)
    _check_shapes(logits, affinity, photos, listed, config)
    read = [images.read_photo(photo) for photo in photos]
    if listed is None:
        listed = parse_classes([str(index) for index in range(logits.shape[1])])
    check_background(config, listed.background)
    _, count, height, width = logits.shape
    kind = np.float32 if affinity is None else jnp.result_type(affinity)
    check_solve(config.discrepancy, class_bucket(1, count), height * width, kind)
    given = _Given(logits, affinity, read, listed)
    solved, labelled = given.solved(config), given.class_labels(config)
    results = [
        assemble(
            photo,
            listed,
            solved.order[i, : solved.counts[i]],
            jax.tree.map(lambda leaf, i=i: leaf[i], solved.solution),
            labelled[i],
            grid=given.grid(config),
            timings=given.clock.timings,
            config=config,
        )
        for i, photo in enumerate(read)
    ]
    return results[0] if single else results


class _Given(Steps):
    """The steps for photos whose logits and affinity are given."""

    def __init__(
        self,
        logits: Array | np.ndarray,
        affinity: Array | np.ndarray | None,
        photos: Sequence[Photo],
        classes: ClassList,
    ):
        given = jnp.asarray(logits)
        (device,) = given.devices()
        super().__init__(
            photos,
            classes.titles,
            Placement(device),
            size=len(photos),
            background=classes.background,
        )
        batch, rows, height, width = given.shape
        self._grid = height, width
        put = self.placement.put_batch
        self._logits = put(given.reshape(batch, rows, height * width))
        self._affinity = None if affinity is None else put(jnp.asarray(affinity))

    def grid(self, config: SegmenterConfig) -> tuple[int, int]:
        """Rows and columns of the logits."""
        return self._grid

    def logits(self, config: SegmenterConfig) -> Array:
        """The given logits, in float32."""
        return self._logits.astype(jnp.float32)

    def affinity(self, config: SegmenterConfig) -> Array | None:
        """The given affinity; ``None`` if it is not needed."""
        return self._affinity if config.discrepancy.needs_affinity else None


def _as_array(name: str, given: Any) -> Array | np.ndarray:
    """Arrays as they are; nested lists, and what else NumPy can read, as an array."""
    if isinstance(given, Array | np.ndarray):
        return given
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:  # lists of unequal lengths, a GPU tensor
        raise ValueError(f"`{name}` is no array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"`{name}` is {type(given).__name__}, expected an array of numbers"
        )
    return array


def _check_shapes(
    logits: Array | np.ndarray,
    affinity: Array | np.ndarray | None,
    photos: Sequence[Any],
    classes: ClassList | None,
    config: SegmenterConfig,
) -> None:
    if logits.ndim != 4 or 0 in logits.shape:
        raise ValueError(
            f"`logits` has shape {logits.shape}, expected [classes, height, width], or "
            "[batch, classes, height, width]; put the classes before the patches"
        )
    batch, count, height, width = logits.shape
    patches = height * width
    if classes is not None and len(classes) != count:
        raise ValueError(f"`classes` has {len(classes)} names, the logits {count} rows")
    if affinity is None and config.discrepancy.needs_affinity:
        raise ValueError(
            f"`affinity` is None, but mode {config.discrepancy.name!r} needs one; pass "
            'it, or use mode="kl" or mode="logits"'
        )
    if affinity is not None and affinity.shape != (batch, patches, patches):
        raise ValueError(
            f"`affinity` has shape {affinity.shape}, expected "
            f"{(batch, patches, patches)} for logits on a grid of {height} x {width} "
            "patches; resample the logits to the grid of the attention, and average "
            "the attention of several heads first"
        )
    is_list = isinstance(photos, Sequence) and not isinstance(photos, Photo)
    if not is_list or len(photos) != batch:
        found = len(photos) if is_list else type(photos).__name__
        raise ValueError(f"`photos` is {found}, expected a list of {batch}")
