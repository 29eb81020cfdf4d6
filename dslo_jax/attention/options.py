"""Options of an affinity: layers of self-attention, and how they are averaged."""

from dataclasses import dataclass

from dslo_jax.attention.layers import Layers, read_layers
from dslo_jax.options import MAX_FLOAT, MAX_INT, MIN_FLOAT, Options, option


# With 8 pixels in a patch these are 262144 patches, whose affinity takes 275 GB.
_MAX_SIZE = 4096


@dataclass(frozen=True)
class AffinityOptions(Options):
    """Options of the self-attention that is read, and of its mean.

    Args:
        size: Side of the square to which a photo is resized before its self-attention
            is read, in pixels; a multiple of 64 up to 4096, and a multiple of the patch
            size of DINO, DINOv2 or CLIP.
        timestep: Diffusion timestep of the single pass, in [0, 999]; 0 for networks
            that are not diffusion models.
        layers: Layers of attention and their weights: names as in the checkpoint or in
            the paper (down0 down1 up0 up1 up2), or indices (0 is the first, -1 the
            last), as in up0=0.5 up1=0.5; weight 1 if none is given. Empty for up0 and
            up1 of Stable Diffusion, half each, and for the last layer of other
            networks.
        noise_seed: Seed of the noise that is added to the latents as in training, as
            much as the timestep has; -1 adds none, as in the paper. Every photo gets
            the same noise. -1 for networks that are not diffusion models.
        temperature: Softens (above 1) or sharpens (below 1) the affinity; 1 changes
            nothing. More than 0.
    """

    size: int = option(512, flat="affinity_size", low=1, high=_MAX_SIZE)
    timestep: int = option(0, low=0, high=999)
    layers: Layers = option((), flat="affinity_layers")
    noise_seed: int = option(-1, low=-1, high=MAX_INT)
    temperature: float = option(
        1.0, flat="affinity_temperature", low=MIN_FLOAT, high=MAX_FLOAT
    )

    def __post_init__(self):
        object.__setattr__(self, "layers", read_layers(self.layers))
        super().__post_init__()
