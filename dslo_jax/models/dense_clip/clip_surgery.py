"""The architecture surgery of CLIP Surgery: values attend to values.

Li, Wang, Duan, Zhang, Li: A Closer Look at the Explainability of Contrastive Language-
Image Pre-training, Pattern Recognition 2025 (arXiv 2304.05653, first called CLIP
Surgery); xmed-lab/CLIP_Surgery, clip/clip_surgery_model.py. Its feature surgery, which
subtracts from the logits what all classes share, is not a part of it.
"""

from functools import partial

from jaxtyping import Array, Float

from dslo_jax.models.clip_config import ClipVisionConfig
from dslo_jax.models.clip_layers import (
    Heads,
    Mask,
    attention_weights,
    weighted_mean,
)
from dslo_jax.models.dense_clip.dual_path import run_dual_path, work_of_dual_path
from dslo_jax.models.dense_clip.variant import Tokens, Variant
from dslo_jax.work import Work, product


def _mix(
    normalised: Tokens, heads: Heads, mask: Mask | None
) -> Float[Array, "batch heads patches size"]:
    """Average with softmax(v v.T), with the scale of CLIP and the class token."""
    del normalised
    weights = attention_weights(heads.value[:, :, 1:], heads.value, mask)
    return weighted_mean(weights, heads.value)


def _work(config: ClipVisionConfig, patches: int) -> Work:
    """Computation: values of N + 1 tokens; 4 N (N + 1) C + 2 N C^2 in six blocks."""
    mixing = product(patches, config.hidden_size, patches + 1).times(2)
    return work_of_dual_path(config, patches, projected=1, mixing=mixing)


CLIP_SURGERY = Variant(partial(run_dual_path, mix=_mix), _work)
