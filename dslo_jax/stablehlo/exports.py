"""The programs that can be exported: the whole step, and a discrepancy alone."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dslo_jax import prompts
from dslo_jax.errors import OptionError
from dslo_jax.pipeline.stages import Clock
from dslo_jax.segmenter import Classes, Segmenter
from dslo_jax.solvers import Discrepancy, Reason
from dslo_jax.solvers.contract import require_usable
from dslo_jax.solvers.options import plain_options
from dslo_jax.stablehlo.program import PLATFORMS, Input, Program, make_program
from dslo_jax.stablehlo.solver import Solver
from dslo_jax.stablehlo.step import REJECTED, UNKNOWN, Bucket, WholeStep


_STATUS = {
    "reason": "why each class ended, one of `reasons`; solved below 4",
    "error": "error of the solver; NaN for a class that was not solved",
    "num_steps": "steps of the solver",
}


def export_segmenter(
    segmenter: Segmenter,
    classes: Classes,
    size: tuple[int, int],
    *,
    batch: int = 1,
    platforms: Sequence[str] = PLATFORMS,
    discrepancy: Discrepancy | None = None,
    **options: Any,
) -> Program:
    """Make one program of the whole method: photos of one size to labels.

    The program resizes the photos itself. The features of the names are computed now,
    and stored beside the program as inputs; others of as many names may be given.

    Args:
        segmenter: The networks, and the options of the method.
        classes: One entry per class: a name, or a list of synonyms.
        size: Height and width of the photos in pixels.
        batch: Number of photos.
        platforms: Some of ``PLATFORMS``; each has its own form of the program.
        discrepancy: The discrepancy to solve for, instead of that of the segmenter.
        **options: Other options by their flat names, such as ``mode="path"``.

    Returns:
        The program. Its inputs are ``"pixels"`` (uint8 ``[batch, height, width, 3]``),
        ``"text"`` (float32 ``[names, channels]``) and ``"class_of_name"`` (int32
        ``[names]``). Its outputs: ``"labels"`` (int32 ``[batch, height, width]``), -1
        in a photo that could not be solved; ``"tied"`` (bool), where several classes
        have the greatest value; ``"maps"`` (float32 ``[batch, classes, rows,
        columns]``), minus infinity for a class that early rejection dropped; and for
        each class ``"reason"`` (a ``solvers.Reason``, or -1 for a rejected class),
        ``"error"`` and ``"num_steps"``.

    Raises:
        ClassListError: The class list cannot be used.
        OptionError: An option is unknown or out of range, or a size or a platform
            cannot be used.
    """
    config = segmenter.configured(discrepancy=discrepancy, **options)
    listed = prompts.parse_classes(classes)
    check_sizes(height=size[0], width=size[1], batch=batch)
    networks = segmenter.networks
    bucket = Bucket(size, len(listed), batch)
    step = WholeStep(networks, config, bucket, listed.background)
    text = networks.embed(Clock(), listed.names, config.clip.templates)
    text = np.asarray(jax.device_get(text), np.float32)
    index = np.asarray(listed.class_of_name, np.int32)
    inputs = {
        "pixels": Input(
            (batch, *size, 3), "uint8", "photos, upright sRGB, from 0 to 255"
        ),
        "text": Input(
            text.shape, "float32", "features of the names; each has length 1", text
        ),
        "class_of_name": Input(
            index.shape, "int32", "index of the class of each name, not falling", index
        ),
    }
    outputs = {
        "labels": f"index of the class of every pixel; {UNKNOWN} in a photo that could "
        "not be solved: a logit is not finite, or a class has no solution",
        "tied": "whether several classes have the greatest value",
        "maps": "discrepancy of each class on the grid of patches; minus infinity for "
        "a class that early rejection dropped, 0 for a class that was not solved",
        **_STATUS,
    }
    model = segmenter.model_info(config)
    facts = {
        "kind": "labels",
        "classes": [list(names) for names in listed.synonyms],
        "background": listed.background,
        "model": model and model.facts,
        "config": config.facts,
        "reasons": {**_reasons(), str(REJECTED): "Early rejection dropped the class."},
    }
    try:
        return make_program(step, step.parameters, inputs, outputs, facts, platforms)
    except ValueError as error:
        if "too large for 32 bits" not in str(error):
            raise
        raise OptionError("O01", f"size = {size[0]}x{size[1]}: {error}") from error


def export_discrepancy(
    discrepancy: Discrepancy,
    classes: int,
    patches: int,
    *,
    batch: int = 1,
    dtype: str = "float32",
    platforms: Sequence[str] = PLATFORMS,
) -> Program:
    """Make one program of a discrepancy alone: sources and affinity to maps.

    Args:
        discrepancy: One of ``solvers``, or your own.
        classes: Number of classes.
        patches: Number of patches.
        batch: Number of photos.
        dtype: Type of the affinity: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        platforms: As for ``export_segmenter``.

    Returns:
        The program. Its inputs are ``"source"`` (float32 ``[batch, classes,
        patches]``), and ``"affinity"`` (``[batch, patches, patches]``) if the
        discrepancy reads one. Its outputs are ``"maps"`` (float32 ``[batch, classes,
        patches]``), and for each class ``"reason"``, ``"error"`` and ``"num_steps"``.

    Raises:
        OptionError: A size, the type or a platform cannot be used, or a discrepancy
            of one's own breaks a rule of ``Discrepancy`` (``O10``).
    """
    check_sizes(classes=classes, patches=patches, batch=batch)
    require_usable(discrepancy)
    if dtype not in ("float32", "bfloat16", "float16"):
        raise OptionError(
            "O03", f"dtype = {dtype!r}; expected float32, bfloat16 or float16"
        )
    what = "distributions over the patches, at least 0; a row of zeros is no class"
    if discrepancy.takes_logits:
        what = "logits of any sign"
    shape = batch, classes, patches
    inputs = {"source": Input(shape, "float32", what)}
    if discrepancy.needs_affinity:
        inputs["affinity"] = Input(
            (batch, patches, patches),
            dtype,
            "attention from patch (row) to patch (column), at least 0",
        )
    outputs = {
        "maps": "discrepancy of each class; 0 for a class that was not solved",
        **_STATUS,
    }
    facts = {
        "kind": "discrepancy",
        "discrepancy": discrepancy.name,
        "options": plain_options(discrepancy),
        "reasons": _reasons(),
    }
    return make_program(Solver(discrepancy), {}, inputs, outputs, facts, platforms)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes of a program that are too small.

    Args:
        **sizes: ``height``, ``width``, ``batch``, ``classes`` or ``patches``.

    Raises:
        OptionError: Height or width is below 2, or another below 1 (``O01``).
    """
    for name, value in sizes.items():
        least = 2 if name in ("height", "width") else 1
        if value < least:
            raise OptionError("O01", f"{name} = {value}; expected at least {least}")


def _reasons() -> dict[str, str]:
    return {str(reason.value): reason.sentence for reason in Reason}
