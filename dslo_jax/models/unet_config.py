"""The shape of a Stable Diffusion UNet, and the names of its self-attentions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dslo_jax.errors import CheckpointError
from dslo_jax.models.diffusion_layers import require_fields


_WANTED = {
    "_class_name": "UNet2DConditionModel",
    "in_channels": 4,
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "num_class_embeds": None,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "attention_type": "default",
}

_DOWN_TYPES = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
_UP_TYPES = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a UNet of the Stable Diffusion 1 and 2 family.

    The defaults are those of diffusers, for fields that a ``config.json`` omits.

    Args:
        block_out_channels: Channels of each level, from full resolution downwards.
        down_attention: Whether each down block has attention.
        up_attention: Whether each up block has attention, from the lowest resolution.
        heads: Number of attention heads of each level.
        layers_per_block: Layers of a down block; an up block has one more.
        cross_attention_dim: Channels of the context.
        norm_num_groups: Groups of every group normalisation.
        norm_eps: Epsilon of the residual blocks' normalisations.
        flip_sin_to_cos: Whether the cosines of the time embedding come first.
        freq_shift: Offset in the frequencies of the time embedding.
    """

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_attention: tuple[bool, ...] = (True, True, True, False)
    up_attention: tuple[bool, ...] = (False, True, True, True)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    layers_per_block: int = 2
    cross_attention_dim: int = 1280
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "UNetConfig":
        """Read a diffusers configuration.

        ``attention_head_dim`` holds the *number* of heads: a naming mistake that
        diffusers keeps, because published configurations rely on it.

        Raises:
            CheckpointError: ``W06`` for another architecture.
        """
        require_fields(config, _WANTED)
        channels = tuple(config.get("block_out_channels", cls.block_out_channels))
        heads = config.get("attention_head_dim", 8)
        heads = (heads,) * len(channels) if isinstance(heads, int) else heads
        if heads is None or len(heads) != len(channels):
            raise CheckpointError(
                "W06",
                f"attention_head_dim is {heads}, wanted one number of heads for each "
                f"of block_out_channels {list(channels)}",
            )
        return cls(
            block_out_channels=channels,
            down_attention=_attention(
                config, "down_block_types", _DOWN_TYPES, cls.down_attention, channels
            ),
            up_attention=_attention(
                config, "up_block_types", _UP_TYPES, cls.up_attention, channels
            ),
            heads=tuple(heads),
            layers_per_block=_integer(config, "layers_per_block", cls.layers_per_block),
            cross_attention_dim=_integer(
                config, "cross_attention_dim", cls.cross_attention_dim
            ),
            norm_num_groups=_integer(config, "norm_num_groups", cls.norm_num_groups),
            norm_eps=float(config.get("norm_eps", cls.norm_eps)),
            flip_sin_to_cos=config.get("flip_sin_to_cos", cls.flip_sin_to_cos),
            freq_shift=float(config.get("freq_shift", cls.freq_shift)),
        )

    @property
    def time_channels(self) -> int:
        """Width of the time embedding."""
        return 4 * self.block_out_channels[0]

    @property
    def taps(self) -> tuple[str, ...]:
        """The module path of every self-attention, in the order of execution."""
        layers = self.layers_per_block
        blocks = [
            (f"down_blocks.{index}", layers)
            for index, attention in enumerate(self.down_attention)
            if attention
        ]
        blocks.append(("mid_block", 1))
        blocks += [
            (f"up_blocks.{index}", layers + 1)
            for index, attention in enumerate(self.up_attention)
            if attention
        ]
        return tuple(
            f"{block}.attentions.{layer}.transformer_blocks.0.attn1"
            for block, count in blocks
            for layer in range(count)
        )


def _attention(
    config: Mapping[str, Any],
    field: str,
    types: Mapping[str, bool],
    default: tuple[bool, ...],
    channels: tuple[int, ...],
) -> tuple[bool, ...]:
    """Which blocks have attention, from the names of their types."""
    names = config.get(field)
    if names is None and len(default) == len(channels):
        return default
    if (
        names is None
        or len(names) != len(channels)
        or any(name not in types for name in names)
    ):
        raise CheckpointError(
            "W06",
            f"{field} is {names}, wanted one of {sorted(types)} for each of "
            f"block_out_channels {list(channels)}",
        )
    return tuple(types[name] for name in names)


def _integer(config: Mapping[str, Any], field: str, default: int) -> int:
    value = config.get(field, default)
    if not isinstance(value, int):
        raise CheckpointError(
            "W06", f"{field} is {value!r}, wanted one integer for all blocks"
        )
    return value
