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
    from dslo_jax import ops, solvers
    from dslo_jax.config import SegmenterConfig
    from dslo_jax.errors import DsloError
    from dslo_jax.own_logits import segment_logits
    from dslo_jax.points import PointMaps, point_maps
    from dslo_jax.segmentation import Segmentation
    from dslo_jax.segmenter import Segmenter
    from dslo_jax.stream import FailedPhoto

__all__ = [
    "DsloError",
    "FailedPhoto",
    "PointMaps",
    "Segmentation",
    "Segmenter",
    "SegmenterConfig",
    "ops",
    "point_maps",
    "segment_logits",
    "solvers",
]

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

__version__ = _version("dslo-jax")


def __getattr__(name: str) -> _Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOMES:  # a room
        return _import_module(f"{__name__}.{name}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
