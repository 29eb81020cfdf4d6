"""The device of a pipeline, and every way of arrays to it and from it.

``mesh.MeshPlacement`` is the same for several devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float


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

    @property
    def parts(self) -> int:
        """Number of parts that the photos of a batch are divided into."""
        return 1

    def padded(self, photos: int) -> int:
        """The smallest multiple of ``parts`` that is not less than ``photos``."""
        return -(-photos // self.parts) * self.parts

    def put(self, tree: Any) -> Any:
        """Put arrays on the device that all photos share, such as parameters."""
        return jax.device_put(tree, self.device)

    def put_batch(self, tree: Any) -> Any:
        """Put arrays on the device whose first axis counts the photos of a batch."""
        return jax.device_put(tree, self.device)

    def put_classes(
        self, values: Float[Array, "batch classes patches"]
    ) -> Float[Array, "batch classes patches"]:
        """Divide the classes of a batch among devices, if there are several."""
        return values

    def put_affinity(
        self, affinity: Float[Array, "batch patches patches"]
    ) -> Float[Array, "batch patches patches"]:
        """Divide the columns of large affinities among devices, if several."""
        return affinity

    def joined(self, arrays: Sequence[Array]) -> Array:
        """An array whose part on each device is already there, in another array."""
        (array,) = arrays
        return array

    def fetch(self, tree: Any) -> Any:
        """Wait for arrays, and copy them to the host in one transfer.

        Args:
            tree: Arrays, or trees of them.

        Returns:
            The same with NumPy arrays.
        """
        return jax.device_get(tree)
