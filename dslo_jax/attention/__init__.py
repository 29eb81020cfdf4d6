"""Sources of affinities: networks whose self-attention is read."""

from dslo_jax.attention.average import average_attention as average_attention
from dslo_jax.attention.diffusion import (
    DiffusionAffinity as DiffusionAffinity,
)
from dslo_jax.attention.loading import (
    downscaling_of as downscaling_of,
    load_affinity as load_affinity,
)
from dslo_jax.attention.options import (
    AffinityOptions as AffinityOptions,
    Layers as Layers,
)
from dslo_jax.attention.source import AffinitySource as AffinitySource
from dslo_jax.attention.transformer import (
    TransformerAffinity as TransformerAffinity,
    fitting_size as fitting_size,
)
