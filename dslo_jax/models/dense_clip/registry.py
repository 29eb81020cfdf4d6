"""All variants of CLIP's vision network by name."""

from collections.abc import Mapping
from types import MappingProxyType

from dslo_jax.models.dense_clip.cass import CASS
from dslo_jax.models.dense_clip.clearclip import CLEARCLIP
from dslo_jax.models.dense_clip.clip_surgery import CLIP_SURGERY
from dslo_jax.models.dense_clip.gem import GEM
from dslo_jax.models.dense_clip.maskclip import MASKCLIP
from dslo_jax.models.dense_clip.mean_of_layers import mean_of_layers
from dslo_jax.models.dense_clip.naclip import NACLIP
from dslo_jax.models.dense_clip.proxyclip import PROXYCLIP
from dslo_jax.models.dense_clip.rf_clip import RF_CLIP
from dslo_jax.models.dense_clip.sc_clip import SC_CLIP
from dslo_jax.models.dense_clip.sclip import SCLIP
from dslo_jax.models.dense_clip.vanilla import VANILLA
from dslo_jax.models.dense_clip.variant import Variant


ATTENTIONS: Mapping[str, Variant] = MappingProxyType(
    {
        "vanilla": VANILLA,
        "qk_mean": mean_of_layers("query", "key"),
        "qq_mean": mean_of_layers("query", "query"),
        "kk_mean": mean_of_layers("key", "key"),
        "maskclip": MASKCLIP,
        "clip-surgery": CLIP_SURGERY,
        "gem": GEM,
        "sclip": SCLIP,
        "clearclip": CLEARCLIP,
        "naclip": NACLIP,
        "sc-clip": SC_CLIP,
        "rf-clip": RF_CLIP,
        "proxyclip": PROXYCLIP,
        "cass": CASS,
    }
)
"""All variants by the name that the option ``clip_attention`` takes."""
