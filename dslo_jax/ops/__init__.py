"""Array steps around the solvers: logits before them, upsampling after them."""

from dslo_jax.ops.dense import (
    dense_bilateral_labels as dense_bilateral_labels,
    dense_bilateral_upsample as dense_bilateral_upsample,
)
from dslo_jax.ops.labels import PixelLabels as PixelLabels
from dslo_jax.ops.layers import (
    Layers as Layers,
    label_layers as label_layers,
    layers_together as layers_together,
)
from dslo_jax.ops.logits import (
    Suppression as Suppression,
    greatest_probability as greatest_probability,
    normalize as normalize,
    reduce_synonyms as reduce_synonyms,
    reject_classes as reject_classes,
    suppress as suppress,
)
from dslo_jax.ops.patches import (
    Patches as Patches,
    cut_patches as cut_patches,
    resize_patches as resize_patches,
)
from dslo_jax.ops.photo_layers import (
    Call as Call,
    PhotoLayers as PhotoLayers,
    cut_batch as cut_batch,
    divide_layers as divide_layers,
)
from dslo_jax.ops.pixels import (
    Canvas as Canvas,
    Colours as Colours,
    empty_tile as empty_tile,
    label_photos as label_photos,
    rooms_for as rooms_for,
)
from dslo_jax.ops.resize import (
    position_weights as position_weights,
    resize as resize,
    resize_positions as resize_positions,
    resize_weights as resize_weights,
)
from dslo_jax.ops.tiles import (
    Tile as Tile,
    label_tile as label_tile,
    units_together as units_together,
)
from dslo_jax.ops.upsample import (
    bilinear_labels as bilinear_labels,
    bilinear_upsample as bilinear_upsample,
    joint_bilateral_labels as joint_bilateral_labels,
    joint_bilateral_upsample as joint_bilateral_upsample,
)
from dslo_jax.ops.weights import Form as Form, form_of as form_of
