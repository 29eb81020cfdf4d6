"""The self-test of ``dslo doctor``: the bundled networks on one drawn scene."""

import time
from typing import Any

from dslo_jax import scenes
from dslo_jax.devices import device_error
from dslo_jax.errors import DsloError
from dslo_jax.evaluation.metrics import Confusion
from dslo_jax.segmenter import Segmenter


SEED, SIZE = 13, (128, 160)
EXPECTED = {"velocity": 0.741, "path": 0.702}
"""mIoU of the scene, measured on a CPU in float32."""

TOLERANCE = 0.03
"""Greatest distance from the expected mIoU; half precision needs some."""

_CLASSES = tuple(each.names for each in scenes.CLASSES)


def self_test(device: str = "auto") -> dict[str, Any]:
    """Segment one scene with each mode, and compare with the truth.

    Args:
        device: As for ``Segmenter.from_pretrained``.

    Returns:
        ``passed``; ``device``; for each mode the mIoU, the expected one and the seconds
        (those of the first include compiling); ``seconds`` of everything. Instead of
        the modes ``error``, if the test could not run.
    """
    start = time.perf_counter()
    try:
        found = _measured(device)
    except Exception as error:  # the report is wanted most where something is broken
        known = error if isinstance(error, DsloError) else device_error(error)
        words = str(known) if known is not None else f"{type(error).__name__}: {error}"
        found = {"passed": False, "error": words}
    return found | {"seconds": time.perf_counter() - start}


def _measured(device: str) -> dict[str, Any]:
    scene = scenes.draw_scene(SEED, size=SIZE)
    segmenter = Segmenter.from_pretrained("demo", offline=True, device=device)
    modes = {}
    for mode, expected in EXPECTED.items():
        start = time.perf_counter()
        labels = segmenter(scene.pixels, _CLASSES, mode=mode).labels
        modes[mode] = {
            "miou": Confusion.of(scene.labels, labels, len(_CLASSES)).mean_iou,
            "expected": expected,
            "seconds": time.perf_counter() - start,
        }
    close = (abs(m["miou"] - m["expected"]) <= TOLERANCE for m in modes.values())
    used = segmenter.networks.device
    return {
        "passed": all(close),
        "device": f"{used.platform} ({used.device_kind})",
        "scene": SEED,
        "modes": modes,
    }
