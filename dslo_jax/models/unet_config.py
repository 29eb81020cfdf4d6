"""The shape of a Stable Diffusion UNet, and the names of its self-attentions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dslo_jax.models.config_fields import Fields


NETWORK = "Stable Diffusion 1 or 2 checkpoint"
"""Name of the supported checkpoints, for errors."""

# The values that our network has; the first is the default of diffusers for a field
# that is left out. Fields that are not named here do not change our computation.
_ALLOWED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "_class_name": ("UNet2DConditionModel", "FlaxUNet2DConditionModel"),
        "in_channels": (4,),
        "center_input_sample": (False,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "only_cross_attention": (False,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "act_fn": ("silu", "swish"),
        "transformer_layers_per_block": (1,),
        "reverse_transformer_layers_per_block": (None, 1),
        "encoder_hid_dim": (None,),
        "encoder_hid_dim_type": (None,),
        "dual_cross_attention": (False,),
        "class_embed_type": (None,),
        "addition_embed_type": (None,),
        "num_class_embeds": (None,),
        "class_embeddings_concat": (False,),
        "resnet_time_scale_shift": ("default",),
        "time_embedding_type": ("positional",),
        "time_embedding_act_fn": (None,),
        "timestep_post_act": (None,),
        "time_cond_proj_dim": (None,),
        "conv_in_kernel": (3,),
        "attention_type": ("default",),
    }
)

_DOWN_TYPES = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
_UP_TYPES = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}

OLD_PREFIX = "UNetRes"
"""Prefix of the names of blocks in files of the first versions of diffusers."""


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
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = "config.json"
    ) -> "UNetConfig":
        """Read a diffusers configuration.

        Most fields are one value or a value for each level; both spellings of the same
        network are read.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Raises:
            CheckpointError: ``W06`` for another architecture.
        """
        fields = Fields(values, source)
        fields.require(_ALLOWED, NETWORK)
        channels = fields.integers("block_out_channels", cls.block_out_channels)
        fields.require({"time_embedding_dim": (None, 4 * channels[0])}, NETWORK)
        config = cls(
            block_out_channels=channels,
            down_attention=_attention(
                fields, "down_block_types", _DOWN_TYPES, cls.down_attention, channels
            ),
            up_attention=_attention(
                fields, "up_block_types", _UP_TYPES, cls.up_attention, channels
            ),
            heads=_heads(fields, len(channels)),
            layers_per_block=fields.integer("layers_per_block", cls.layers_per_block),
            cross_attention_dim=fields.integer(
                "cross_attention_dim", cls.cross_attention_dim
            ),
            norm_num_groups=fields.integer("norm_num_groups", cls.norm_num_groups),
            norm_eps=fields.number("norm_eps", cls.norm_eps),
            flip_sin_to_cos=fields.flag("flip_sin_to_cos", cls.flip_sin_to_cos),
            freq_shift=fields.number("freq_shift", cls.freq_shift, positive=False),
        )
        _check_divisors(fields, config)
        return config

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


def _heads(fields: Fields, levels: int) -> tuple[int, ...]:
    """The number of heads of each level.

    The number is in ``attention_head_dim``. The name is a mistake that diffusers keeps,
    because published configurations depend on it. ``num_attention_heads``, if it is
    stated too, must be the same.
    """
    heads = fields.integers("attention_head_dim", 8, levels=levels)
    if fields.values.get("num_attention_heads") is None:
        return heads
    stated = fields.integers("num_attention_heads", heads, levels=levels)
    if fields.values.get("attention_head_dim") is not None and stated != heads:
        raise fields.wrong(
            "num_attention_heads",
            f"the numbers of heads {list(heads)} that attention_head_dim states",
        )
    return stated


def _attention(
    fields: Fields,
    name: str,
    types: Mapping[str, bool],
    default: tuple[bool, ...],
    channels: tuple[int, ...],
) -> tuple[bool, ...]:
    """Whether each block has attention, from the names of their types."""
    found = fields.values.get(name)
    if found is None and len(default) == len(channels):
        return default
    names = found if isinstance(found, (list, tuple)) else ()
    plain = [str(each).removeprefix(OLD_PREFIX) for each in names]
    if len(plain) != len(channels) or not set(plain) <= set(types):
        raise fields.wrong(
            name,
            f"one of {', '.join(types)} for each of block_out_channels "
            f"{list(channels)}",
        )
    return tuple(types[each] for each in plain)


def _check_divisors(fields: Fields, config: UNetConfig) -> None:
    """Refuse numbers of groups or heads that do not divide the channels of a level."""
    channels = config.block_out_channels
    if any(count % config.norm_num_groups for count in channels):
        raise fields.wrong(
            "norm_num_groups", f"a divisor of block_out_channels {list(channels)}"
        )
    used = [
        down or up
        for down, up in zip(
            config.down_attention, config.up_attention[::-1], strict=True
        )
    ]
    used[-1] = True  # the middle block
    if any(
        attends and count % heads
        for attends, count, heads in zip(used, channels, config.heads, strict=True)
    ):
        raise fields.wrong(
            "attention_head_dim",
            f"numbers of heads that divide block_out_channels {list(channels)}",
        )
