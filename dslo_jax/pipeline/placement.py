"""The device of a pipeline, and every way of arrays to it and from it.

``mesh.MeshPlacement`` is the same for several devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from dslo_jax.errors import DeviceError, is_out_of_memory


ArrayOrShape = jax.Array | jax.ShapeDtypeStruct
"""An array on the device; or its shape, where programs are only compiled."""


@dataclass(frozen=True)
class Placement:
    """The device that holds the networks and runs all programs.

    Args:
        device: The device.
        only_shapes: Whether arrays are replaced by their shapes, so that programs are
            compiled for them and not run.
    """

    device: jax.Device  # pyright: ignore[reportInvalidTypeForm]
    only_shapes: bool = field(default=False, kw_only=True)

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
        return self._put(tree, SingleDeviceSharding(self.device))

    def put_batch(self, tree: Any) -> Any:
        """Put arrays on the device whose first axis counts the photos of a batch."""
        return self._put(tree, SingleDeviceSharding(self.device))

    def put_classes(self, values: ArrayOrShape) -> ArrayOrShape:
        """Divide values ``[batch classes patches]`` among devices by their classes."""
        return values

    def put_affinity(self, affinity: ArrayOrShape) -> ArrayOrShape:
        """Divide large affinities ``[batch patches patches]`` by their columns."""
        return affinity

    def joined(self, arrays: Sequence[Any]) -> Any:
        """An array whose part on each device is already there, in another array."""
        (array,) = arrays
        return array

    def fetch(self, tree: Any) -> Any:
        """Wait for arrays, and copy them to the host in one transfer.

        Args:
            tree: Arrays, or trees of them.

        Returns:
            The same with NumPy arrays.

        Raises:
            DeviceError: A program that was not waited for had too little memory
                (``D01``).
        """
        try:
            return jax.device_get(tree)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                "D01",
                "a batch needs more memory than the device has; use a smaller batch, a "
                "smaller affinity_size, or half precision",
            ) from error

    def _put(self, tree: Any, sharding: jax.sharding.Sharding) -> Any:
        if not self.only_shapes:
            return jax.device_put(tree, sharding)

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(shape, tree)
