"""Sources of logits: networks with features of words and of patches in one space."""

from dslo_jax.logits.clip import (
    ClipLogits as ClipLogits,
    load_logits as load_logits,
    load_proxy as load_proxy,
)
from dslo_jax.logits.options import ClipOptions as ClipOptions
from dslo_jax.logits.source import Cuts as Cuts, LogitsSource as LogitsSource
from dslo_jax.logits.windows import (
    Windows as Windows,
    window_features as window_features,
)
