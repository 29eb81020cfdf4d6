"""How much noise a diffusion model was trained with at each timestep."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dslo_jax.errors import CheckpointError
from dslo_jax.models.config_fields import Fields
from dslo_jax.weights import read_object


FILE_NAME = "scheduler/scheduler_config.json"
"""Path of the configuration in a pipeline folder of diffusers."""

_NETWORK = "noise schedule of Stable Diffusion"
_ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear"),
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False,),
}


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise that is added at each timestep (Ho et al., arXiv 2006.11239, Eq. 4).

    The noisy latent at timestep t is sqrt(a_t) z + sqrt(1 - a_t) n, where a_t is the
    product of 1 - beta up to t and n is normal noise. The defaults are those of
    diffusers, for fields that a file leaves out. What the network predicts (the noise
    or the velocity) does not matter here.

    Args:
        scaled: Whether the square roots of the betas are equally spaced, as in every
            Stable Diffusion, and not the betas themselves.
        beta_start: Beta of timestep 0.
        beta_end: Beta of the last timestep.
        timesteps: Number of timesteps.
    """

    scaled: bool = False
    beta_start: float = 1e-4
    beta_end: float = 0.02
    timesteps: int = 1000

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], *, source: str | Path = FILE_NAME
    ) -> "NoiseSchedule":
        """Read a ``scheduler_config.json`` of diffusers, of any class of scheduler.

        Args:
            values: The parsed file.
            source: The file, to be named in errors.

        Raises:
            CheckpointError: The betas are computed in another way, or a field is not
                what it should be (``W06``).
        """
        fields = Fields(values, source)
        fields.require(_ALLOWED, _NETWORK)
        schedule = cls(
            scaled=fields.get("beta_schedule", "linear") == "scaled_linear",
            beta_start=fields.number("beta_start", cls.beta_start),
            beta_end=fields.number("beta_end", cls.beta_end),
            timesteps=fields.integer("num_train_timesteps", cls.timesteps),
        )
        if not schedule.beta_end < 1:
            raise fields.wrong("beta_end", "a number below 1")
        return schedule

    def kept(self, timestep: int) -> float:
        """The share a_t of the variance that is not noise, in (0, 1).

        Args:
            timestep: 0 ... ``timesteps`` - 1.
        """
        power = 0.5 if self.scaled else 1.0
        ends = self.beta_start**power, self.beta_end**power
        betas = np.linspace(*ends, self.timesteps) ** (1 / power)
        return float(np.prod(1 - betas[: timestep + 1]))


def read_schedule(place: Path) -> NoiseSchedule:
    """Read the schedule of a pipeline folder.

    Raises:
        CheckpointError: The file is missing (``W01``) or is no JSON (``W08``), or the
            betas are computed in another way (``W06``).
    """
    path = place / FILE_NAME
    if not path.is_file():
        raise CheckpointError(
            "W01",
            f"{place} has no {FILE_NAME}, which states how much noise a timestep has; "
            "copy it from the repository of the checkpoint, or leave noise_seed at -1",
        )
    return NoiseSchedule.from_dict(read_object(path), source=path)


def add_noise(
    latents: Float[Array, "batch rows columns channels"], seed: int, kept: float
) -> Float[Array, "batch rows columns channels"]:
    """Add the noise of a seed: the same noise to every photo.

    Args:
        latents: Scaled latents of any floating type.
        seed: Seed of the noise, 0 or more.
        kept: From ``NoiseSchedule.kept``.

    Returns:
        The noisy latents in float32: sqrt(kept) latents + sqrt(1 - kept) noise.
    """
    noise = noise_of(seed, latents.shape[1:])
    return np.sqrt(kept, dtype=np.float32) * latents.astype(jnp.float32) + (
        np.sqrt(1 - kept, dtype=np.float32) * noise[None]
    )


def noise_of(
    seed: int, shape: tuple[int, ...]
) -> Float[Array, "rows columns channels"]:
    """Normal noise of a seed: the same on every device and with every setting of JAX.

    Args:
        seed: 0 or more.
        shape: Rows, columns and channels.

    Returns:
        float32. The bits behind it are those of Threefry whatever the default generator
        is; the map to normal numbers may differ by rounding between devices.
    """
    with jax.threefry_partitionable(True):
        key = jax.random.key(seed, impl="threefry2x32")
        return jax.random.normal(key, shape, jnp.float32)
