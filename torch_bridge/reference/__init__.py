"""The method in eager PyTorch, written as directly as the paper describes it.

It is a reference for tests and a baseline for benchmarks. It computes in the type of
its inputs (the solvers also in float64), one class after the other, without skipping
rows and without stopping early.
"""

from torch_bridge.reference.clip import (
    class_logits as class_logits,
    dense_features as dense_features,
    text_features as text_features,
    window_features as window_features,
)
from torch_bridge.reference.diffusion import (
    Diffusion as Diffusion,
    diffusion_affinity as diffusion_affinity,
    empty_prompt as empty_prompt,
    encode as encode,
)
from torch_bridge.reference.divergence import kl_map as kl_map
from torch_bridge.reference.logits import (
    normalize as normalize,
    reject_classes as reject_classes,
    resize as resize,
    suppress as suppress,
    unsure as unsure,
)
from torch_bridge.reference.markov import (
    doubly_stochastic as doubly_stochastic,
    increment as increment,
    maximum_velocity as maximum_velocity,
    saturation as saturation,
)
from torch_bridge.reference.segment import (
    Reference as Reference,
    segment as segment,
    segment_logits as segment_logits,
)
from torch_bridge.reference.sinkhorn import (
    optimal_path as optimal_path,
    optimal_path_batched as optimal_path_batched,
    sinkhorn as sinkhorn,
    transport_plan as transport_plan,
)
from torch_bridge.reference.upsample import (
    cell_colours as cell_colours,
    dense_bilateral_upsample as dense_bilateral_upsample,
    joint_bilateral_upsample as joint_bilateral_upsample,
)
