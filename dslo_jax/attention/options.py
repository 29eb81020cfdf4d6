"""Options of an affinity: layers of self-attention, and how they are averaged."""

from dataclasses import dataclass

from dslo_jax.options import MAX_FLOAT, MAX_INT, MIN_FLOAT, Options, option


Layers = tuple[tuple[str, float], ...]
"""Pairs of the name of a layer and its weight."""


@dataclass(frozen=True)
class AffinityOptions(Options):
    """Options of the self-attention that is read, and of its mean.

    Args:
        size: Side of the square photo whose self-attention is read, in pixels; a
            multiple of 64, and of the patch size of DINO, DINOv2 or CLIP.
        timestep: Diffusion timestep of the single pass, in [0, 999]; 0 for networks
            that are not diffusion models.
        layers: Attention modules and their weights; empty for the first two of the
            last block of Stable Diffusion, half each, and for the last layer of other
            networks.
        temperature: Softens (> 1) or sharpens (< 1) the affinity; 1 is off.
    """

    size: int = option(512, flat="affinity_size", low=1, high=MAX_INT)
    timestep: int = option(0, low=0, high=999)
    layers: Layers = option((), flat="affinity_layers")
    temperature: float = option(
        1.0, flat="affinity_temperature", low=MIN_FLOAT, high=MAX_FLOAT
    )
