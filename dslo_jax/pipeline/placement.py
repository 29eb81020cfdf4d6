"""The device of a pipeline, and every way of arrays to it and from it."""

from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Placement:
    """The device that holds the networks and runs all programs.

    Args:
        device: The device.
    """

    device: jax.Device  # pyright: ignore[reportInvalidTypeForm]

    @property
    def platform(self) -> str:
        """Platform of the device: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
        return self.device.platform

    def put(self, tree: Any) -> Any:
        """Put arrays on the device that all photos share, such as parameters."""
        return jax.device_put(tree, self.device)

    def put_batch(self, tree: Any) -> Any:
        """Put arrays on the device whose first axis counts the photos of a batch."""
        return jax.device_put(tree, self.device)

    def fetch(self, tree: Any) -> Any:
        """Wait for arrays, and copy them to the host in one transfer.

        Args:
            tree: Arrays, or trees of them.

        Returns:
            The same with NumPy arrays.
        """
        return jax.device_get(tree)
