"""Direct segmentation without logits optimization (DSLO), in JAX.

    >>> from dslo_jax import Segmenter
    >>> segmenter = Segmenter.from_pretrained("sd2+clip-b16")  # doctest: +SKIP
    >>> segmenter("cat.jpg", ["cat", "sofa", "wall"]).save("out")  # doctest: +SKIP

Importing this package starts no JAX backend and does not import torch. The solvers
(``dslo_jax.solvers``), the array steps around them (``dslo_jax.ops``) and
``segment_logits`` also work with logits and attention of other networks.
"""

from importlib.metadata import version as _version

from dslo_jax import ops as ops, solvers as solvers
from dslo_jax.config import SegmenterConfig as SegmenterConfig
from dslo_jax.errors import DsloError as DsloError
from dslo_jax.own_logits import segment_logits as segment_logits
from dslo_jax.points import PointMaps as PointMaps, point_maps as point_maps
from dslo_jax.segmentation import Segmentation as Segmentation
from dslo_jax.segmenter import Segmenter as Segmenter
from dslo_jax.stream import FailedPhoto as FailedPhoto


__version__ = _version("dslo-jax")
