"""Direct segmentation without logits optimization (DSLO), in JAX.

    >>> from dslo_jax import Segmenter
    >>> segmenter = Segmenter.from_pretrained("sd2+clip-b16")  # doctest: +SKIP
    >>> segmenter("cat.jpg", ["cat", "sofa", "wall"]).save("out")  # doctest: +SKIP

The first use of a name below imports JAX, but starts no JAX backend and does not import
torch. The solvers (``dslo_jax.solvers``), the array steps around them
(``dslo_jax.ops``) and ``segment_logits`` also work with logits and attention of other
networks.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any


# With the first use, not here: JAX takes more than a second to import, and the command
# can answer Ctrl-C only after this module is imported.
if _TYPE_CHECKING:
    from dslo_jax import ops as ops, solvers as solvers
    from dslo_jax.config import SegmenterConfig as SegmenterConfig
    from dslo_jax.errors import DsloError as DsloError
    from dslo_jax.own_logits import segment_logits as segment_logits
    from dslo_jax.points import PointMaps as PointMaps, point_maps as point_maps
    from dslo_jax.segmentation import Segmentation as Segmentation
    from dslo_jax.segmenter import Segmenter as Segmenter
    from dslo_jax.stream import FailedPhoto as FailedPhoto

_HOMES = {
    "SegmenterConfig": "config",
    "DsloError": "errors",
    "segment_logits": "own_logits",
    "PointMaps": "points",
    "point_maps": "points",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "FailedPhoto": "stream",
}
_ROOMS = ("ops", "solvers")

__version__ = _version("dslo-jax")


def __getattr__(name: str) -> _Any:
    if name in _ROOMS:
        return _import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
