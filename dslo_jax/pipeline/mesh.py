"""Several devices as a mesh with the axes ``data`` and ``class``.

Photos are divided over ``data``: each device runs the programs of one device on its own
photos, and nothing is exchanged. Classes are divided over ``class``, in the solvers
alone; networks do the same work on all devices of this axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from dslo_jax import tuning
from dslo_jax.pipeline.placement import ArrayOrShape, Placement


DATA, CLASS = "data", "class"
"""The axes of a mesh."""


@dataclass(frozen=True)
class MeshPlacement(Placement):
    """Devices that share the photos and classes of a batch; see ``place``.

    Args:
        device: The first device.
        mesh: All devices.
    """

    mesh: Mesh

    @property
    def parts(self) -> int:
        """Number of parts that the photos of a batch are divided into."""
        return self.mesh.shape[DATA]

    def put(self, tree: Any) -> Any:
        """Put arrays on every device that all photos share, such as parameters."""
        return self._put(tree, self._sharding())

    def put_batch(self, tree: Any) -> Any:
        """Divide arrays whose first axis counts the photos among the devices.

        Args:
            tree: Arrays, or trees of them; the number of photos is a multiple of
                ``parts``.
        """
        return self._put(tree, self._sharding(DATA))

    def put_classes(self, values: ArrayOrShape) -> ArrayOrShape:
        """Divide the classes of a batch, unless the affinity is divided instead."""
        classes, patches = values.shape[1:]
        if classes % self.mesh.shape[CLASS] or self._divides_columns(patches):
            return values
        return self._put(values, self._sharding(DATA, CLASS))

    def put_affinity(self, affinity: ArrayOrShape) -> ArrayOrShape:
        """Divide the columns of large affinities.

        With its rows divided, a solver that reads some of them would gather them all.
        """
        if not self._divides_columns(affinity.shape[2]):
            return affinity
        return self._put(affinity, self._sharding(DATA, None, CLASS))

    def joined(self, arrays: Sequence[Any]) -> Any:
        """An array whose part on each device is already there, in another array.

        Args:
            arrays: For each part, an array of the same shape and sharding with it.
        """
        first = arrays[0]
        if self.only_shapes or all(array is first for array in arrays):
            return first
        there = [
            {shard.device: shard.data for shard in array.addressable_shards}
            for array in arrays
        ]
        pieces = [
            known[device]
            for known, devices in zip(there, self.mesh.devices, strict=True)
            for device in devices
        ]
        return jax.make_array_from_single_device_arrays(
            first.shape, first.sharding, pieces
        )

    def _divides_columns(self, patches: int) -> bool:
        size = self.mesh.shape[CLASS]
        return size > 1 and patches >= tuning.DIVIDED_PATCHES and patches % size == 0

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def place(devices: np.ndarray) -> Placement:
    """The placement of one or several devices.

    Args:
        devices: The devices ``[data, class]``, all of this process. Their number along
            ``class`` is best a divisor of 8, because numbers of classes are padded to
            multiples of 8; classes that cannot be divided equally are not divided.
    """
    first = devices.flat[0]
    if devices.size == 1:
        return Placement(first)
    return MeshPlacement(first, Mesh(devices, (DATA, CLASS)))


def over_photos(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """The function for every part of a batch, on the device of the part.

    Each device runs the program that one device runs for as many photos, waits for no
    other device, and ends its own loops. Where an argument is divided over ``class``,
    the compiler divides the work over this axis.

    Args:
        function: Its positional arguments are arrays, or trees of them. If any of them
            has an axis of photos, all outputs do.
        args: The arguments, or their shapes with shardings.

    Returns:
        The function itself if no argument is divided over ``data``.
    """
    leaves, tree = jax.tree.flatten(args)
    divided = [DATA in _axes(leaf.sharding)[:1] for leaf in leaves]
    if not any(divided):
        return function
    mesh = leaves[divided.index(True)].sharding.mesh
    axes = {DATA, CLASS}
    if any(CLASS in _axes(leaf.sharding) for leaf in leaves):
        axes = {DATA}
    data, shared = PartitionSpec(DATA), PartitionSpec()

    @wraps(function)
    def everywhere(*args: Any, **static: Any) -> Any:
        def here(*leaves: Array) -> Any:
            return function(*jax.tree.unflatten(tree, leaves), **static)

        return jax.shard_map(
            here,
            mesh=mesh,
            in_specs=tuple(data if each else shared for each in divided),
            out_specs=data,
            axis_names=axes,
            check_vma=False,
        )(*jax.tree.leaves(args))

    return everywhere


def _axes(sharding: Any) -> tuple[Any, ...]:
    """The axis of the mesh for each axis of an array; nothing for one device."""
    return tuple(sharding.spec) if isinstance(sharding, NamedSharding) else ()
