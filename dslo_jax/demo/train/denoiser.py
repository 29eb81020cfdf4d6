"""The parts of the UNet and the autoencoder that only training needs.

Segmentation reads self-attentions: it stops before the output layers of the UNet, and
decodes no latents. Training needs the output layers and the decoder. A folder with all
parts is a checkpoint that diffusers can load.
"""

from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from dslo_jax.models.diffusion_layers import GroupNorm, convolution
from dslo_jax.models.unet import UNet, sinusoids
from dslo_jax.models.unet_blocks import Upsample
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, EncoderMidBlock, VAEConfig, residual


TIMESTEPS = 1000

_EPSILON = 1e-6  # in all normalisations of an autoencoder


class Denoiser(UNet):
    """A UNet with its output layers.

    Args:
        config: The shape of the network.
        rngs: Keys for the initial parameters.
    """

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        channels = config.block_out_channels[0]
        self.conv_norm_out = GroupNorm(
            channels, groups=config.norm_num_groups, epsilon=config.norm_eps
        )
        self.conv_out = convolution(channels, 4, rngs=rngs)

    def predict(
        self,
        latents: Float[Array, "batch height width 4"],
        context: Float[Array, "batch context_tokens context_channels"],
        timesteps: Int[Array, " batch"],
    ) -> Float[Array, "batch height width 4"]:
        """Run the whole network.

        Args:
            latents: Noisy latents.
            context: Tokens of the prompt.
            timesteps: 0 (no noise) ... 999 for each image; may be traced.

        Returns:
            The prediction at every latent.
        """
        # With a table, the sinusoids are equal to those of inference, bit for bit.
        waves = jnp.asarray(self._waves(), self.conv_in.kernel.dtype)[timesteps]
        time = self.time_embedding.embed(waves)
        keys_values = self.keys_values(context)
        sample = _output_of(self._self_attentions(latents, keys_values, time))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(sample)))

    def _waves(self) -> Float[np.ndarray, "timesteps channels"]:
        """The sinusoids of every timestep."""
        config = self.config
        return np.stack(
            [
                sinusoids(
                    timestep,
                    config.block_out_channels[0],
                    freq_shift=config.freq_shift,
                    flip_sin_to_cos=config.flip_sin_to_cos,
                )
                for timestep in range(TIMESTEPS)
            ]
        )


def _output_of(blocks: Generator[Any, None, Array]) -> Array:
    """Run a generator to its end, and give its return value."""
    while True:
        try:
            next(blocks)
        except StopIteration as stop:
            return stop.value


class DecoderBlock(nnx.Module):
    """Residual blocks at one resolution, then upsampling by two."""

    def __init__(self, config: VAEConfig, index: int, *, rngs: nnx.Rngs):
        levels = config.block_out_channels[::-1]
        channels, in_channels = levels[index], levels[max(index - 1, 0)]
        self.resnets = nnx.List(
            [
                residual(
                    in_channels if layer == 0 else channels, channels, config, rngs=rngs
                )
                for layer in range(config.layers_per_block + 1)
            ]
        )
        last = index == len(levels) - 1
        self.upsamplers = nnx.List(
            [Upsample(channels, rngs=rngs) for _ in range(0 if last else 1)]
        )

    def __call__(
        self, sample: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width out_channels"]:
        """Apply the block."""
        for resnet in self.resnets:
            sample = resnet(sample)
        for upsample in self.upsamplers:
            _, height, width, _ = sample.shape
            sample = upsample(sample, (2 * height, 2 * width))
        return sample


class Decoder(nnx.Module):
    """The decoder: latents, after ``post_quant_conv``, to pixels."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        channels = config.block_out_channels
        self.conv_in = convolution(4, channels[-1], rngs=rngs)
        self.mid_block = EncoderMidBlock(config, rngs=rngs)
        self.up_blocks = nnx.List(
            [DecoderBlock(config, index, rngs=rngs) for index in range(len(channels))]
        )
        self.conv_norm_out = GroupNorm(
            channels[0], groups=config.norm_num_groups, epsilon=_EPSILON
        )
        self.conv_out = convolution(channels[0], 3, rngs=rngs)

    def __call__(
        self, latents: Float[Array, "batch height width 4"]
    ) -> Float[Array, "batch out_height out_width 3"]:
        """Apply the decoder."""
        sample = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            sample = block(sample)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(sample)))


class Autoencoder(VAE):
    """Both halves of an autoencoder.

    Args:
        config: The shape of the network.
        rngs: Keys for the initial parameters.
    """

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        none = ((0, 0), (0, 0))
        self.decoder = Decoder(config, rngs=rngs)
        self.post_quant_conv = convolution(4, 4, size=1, padding=none, rngs=rngs)

    def posterior(
        self, pixels: Float[Array, "batch height width 3"]
    ) -> tuple[
        Float[Array, "batch latent_height latent_width 4"],
        Float[Array, "batch latent_height latent_width 4"],
    ]:
        """Mean and log-variance of the posterior, not scaled.

        Args:
            pixels: RGB in [-1, 1].
        """
        mean, log_variance = jnp.split(
            self.quant_conv(self.encoder(pixels)), 2, axis=-1
        )
        return mean, jnp.clip(log_variance, -30, 20)

    def decode(
        self, latents: Float[Array, "batch height width 4"]
    ) -> Float[Array, "batch out_height out_width 3"]:
        """Decode latents, not scaled, to RGB in about [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents))
