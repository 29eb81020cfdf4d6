"""Energy of an NVIDIA GPU, by its own counter; needs the package ``nvidia-ml-py``.

The counter has steps of 20 to 100 ms, so energy is measured over ten seconds and more.
Where there is no counter, there is no figure: it is never estimated.
"""

import importlib
import time
from collections.abc import Callable
from typing import Any

from dslo_jax.errors import OptionError


WINDOW_S = 10.0
"""Least time over which energy is measured, in seconds."""


class Energy:
    """The counter of one GPU.

    Args:
        device: A device of JAX; the GPU with the same PCI address or number is used.

    Raises:
        OptionError: The device is no NVIDIA GPU (``O01``), the package is missing or
            the driver does not answer (``O05``).
    """

    def __init__(self, device: Any):
        if device.platform not in ("gpu", "cuda"):
            raise OptionError(
                "O01", f"--energy on {device.platform!r}; only NVIDIA GPUs count energy"
            )
        try:
            self._nvml = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._gpu = self._nvml.nvmlDeviceGetHandleByIndex(device.local_hardware_id)
            self._millijoules()
        except Exception as error:  # the package raises errors of its own
            raise OptionError(
                "O05",
                f"--energy needs the counter of the GPU ({error}); try: pip install "
                '"dslo-jax[energy]"',
            ) from error
        self.idle_w = self._idle()

    def per_photo(self, call: Callable[[], Any], photos: int) -> dict[str, Any]:
        """Measure the energy of a photo, over ten seconds and more.

        Args:
            call: Segments ``photos`` photos and waits for the results.
            photos: Number of photos of a call.

        Returns:
            ``j_per_photo`` in all, ``j_per_photo_over_idle`` less what the idle GPU
            uses in the same time, ``idle_w`` in watts, and ``window_s`` in seconds.
        """
        before, start, calls = self._millijoules(), time.perf_counter(), 0
        while time.perf_counter() - start < WINDOW_S:
            call()
            calls += 1
        seconds = time.perf_counter() - start
        joules = (self._millijoules() - before) / 1e3
        return {
            "j_per_photo": joules / (calls * photos),
            "j_per_photo_over_idle": (joules - self.idle_w * seconds)
            / (calls * photos),
            "idle_w": self.idle_w,
            "window_s": seconds,
        }

    def _idle(self) -> float:
        """Watts of the GPU while nothing runs."""
        before, start = self._millijoules(), time.perf_counter()
        time.sleep(WINDOW_S)
        seconds = time.perf_counter() - start
        return (self._millijoules() - before) / 1e3 / seconds

    def _millijoules(self) -> int:
        """Energy since the driver was loaded."""
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)
