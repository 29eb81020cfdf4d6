"""Sources of affinities: networks whose self-attention is read."""

from dslo_jax.attention.average import average_attention as average_attention
from dslo_jax.attention.diffusion import (
    DiffusionAffinity as DiffusionAffinity,
    latent_layers as latent_layers,
)
from dslo_jax.attention.layers import (
    Layers as Layers,
    find_layers as find_layers,
    short_name as short_name,
)
from dslo_jax.attention.loading import (
    downscaling_of as downscaling_of,
    load_affinity as load_affinity,
)
from dslo_jax.attention.options import AffinityOptions as AffinityOptions
from dslo_jax.attention.source import AffinitySource as AffinitySource
from dslo_jax.attention.transformer import (
    TransformerAffinity as TransformerAffinity,
    fitting_size as fitting_size,
)
