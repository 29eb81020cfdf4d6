"""The options that the page offers, and their ranges.

The ranges are narrower than those of ``SegmenterConfig``: a request must end in
bounded time and memory. Options that a range leaves out, such as the size of the
affinity, are those that ``dslo serve`` was started with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from dslo_jax.config import SegmenterConfig, option_fields
from dslo_jax.errors import OptionError, RequestError
from dslo_jax.options import check_choice, check_range, check_type


@dataclass(frozen=True)
class Choice:
    """One option on the page.

    Args:
        name: Its flat name.
        title: Its name for people.
        help: What it does, in a sentence.
        low: Least value of a number.
        high: Greatest value of a number.
        step: Distance of two values on the slider.
        modes: The modes that depend on it; empty for all.
        is_live: Whether another value compiles nothing, so that the result may follow
            a slider while it moves.
        is_diffusion: Whether only diffusion models have it.
        is_logarithmic: Whether the slider has equal ratios instead of equal distances.
    """

    name: str
    title: str
    help: str
    low: float = 0
    high: float = 0
    step: float = 0
    modes: tuple[str, ...] = ()
    is_live: bool = False
    is_diffusion: bool = False
    is_logarithmic: bool = False


MODES = {
    "velocity": "How soon a random walk from the class reaches each patch.",
    "path": "The cost of the optimal transport that arrives in each patch.",
    "fused": "The mean of velocity and path.",
    "kl": "The divergence from the uniform distribution. No self-attention.",
    "propagation": "A random walk that restarts at the class.",
    "logits": "What CLIP alone says: the baseline.",
}
"""What each mode does, for people."""

_WALK, _PATH = ("velocity", "fused"), ("path", "fused")
CHOICES = (
    Choice(
        "threshold",
        "tau, the threshold",
        "A patch is reached when it holds this share of the greatest mass.",
        *(0.01, 0.99, 0.01),
        modes=_WALK,
        is_live=True,
    ),
    Choice(
        "epsilon",
        "epsilon, the smoothing",
        "Greater values spread the transport over more patches.",
        *(0.001, 10, 0.01),
        modes=_PATH,
        is_live=True,
        is_logarithmic=True,
    ),
    Choice(
        "propagation_alpha",
        "alpha, the neighbours",
        "How far a walk goes before it restarts.",
        *(0, 0.99, 0.01),
        modes=("propagation",),
        is_live=True,
    ),
    Choice(
        "suppression_threshold",
        "suppression",
        "Patches whose confidence is below this are left out at the start.",
        *(0, 1, 0.05),
    ),
    Choice("suppression", "measure of confidence", "What the suppression compares."),
    Choice(
        "early_rejection", "early rejection", "Drop classes that win no patch at first."
    ),
    Choice(
        "rejection_share",
        "share for rejection",
        "Classes that win a smaller share of the patches are dropped.",
        *(0, 0.1, 0.001),
    ),
    Choice("upsampling", "upsampling", "How maps of patches become labels of pixels."),
    Choice(
        "spatial_variance",
        "reach of the upsampling",
        "How far a patch has a say, in patches squared.",
        *(0.1, 20, 0.1),
        is_live=True,
        is_logarithmic=True,
    ),
    Choice(
        "range_variance",
        "tolerance of colours",
        "How different colours may be that belong together.",
        *(0.0005, 1, 0.001),
        is_live=True,
        is_logarithmic=True,
    ),
    Choice(
        "affinity_temperature",
        "temperature of the attention",
        "Less than 1 sharpens what belongs together, more softens it.",
        *(0.2, 3, 0.05),
        modes=(*_WALK, "path", "propagation"),
    ),
    Choice(
        "timestep",
        "timestep",
        "The noise level at which the diffusion model is asked.",
        *(0, 999, 1),
        modes=(*_WALK, "path", "propagation"),
        is_diffusion=True,
    ),
    Choice("clip_attention", "attention of CLIP", "That of its last block."),
    Choice("templates", "templates", "One sentence for each word, or the mean of 80."),
)
_NAMES = {each.name: each for each in CHOICES}
_TEMPLATES = ("imagenet", "single")


def checked(options: Any, config: SegmenterConfig) -> dict[str, Any]:
    """Check the options of a request against what the page offers.

    Args:
        options: What was sent: an object of flat names.
        config: The options that ``dslo serve`` was started with. Their values are
            allowed, also where they are outside the range of the page.

    Returns:
        The options, which the segmenter checks again for their types.

    Raises:
        RequestError: It is no object of names (``V02``).
        OptionError: An option is not offered (``O02``), or a value is out of the range
            of the page (``O01``) or of the wrong type (``O03``).
    """
    if not isinstance(options, Mapping):
        raise RequestError("V02", f"options = {options!r:.80}; expected an object")
    known = config.flat
    for name, value in options.items():
        if name == "mode":
            check_type(name, value, str)
            check_choice(name, value, tuple(MODES))
            continue
        choice = _NAMES.get(name)
        if choice is None:
            offered = ", ".join(["mode", *_NAMES])
            raise OptionError(
                "O02", f"option {name!r:.60} is not offered here; offered: {offered}"
            )
        if isinstance(value, str) and name == "templates" and value not in _TEMPLATES:
            raise OptionError(
                "O03", f"templates = {value!r:.60}; expected one of {_TEMPLATES}"
            )
        if isinstance(value, list | Mapping) or value is None:
            raise OptionError("O03", f"{name} = {value!r:.60}; expected one value")
        if (
            choice.step
            and isinstance(value, int | float)
            and not isinstance(value, bool)
            and value != known[name]
        ):
            check_range(name, value, choice.low, choice.high)
    return dict(options)


def described(config: SegmenterConfig, *, is_diffusion: bool) -> list[dict[str, Any]]:
    """The options for the page, with the values that ``dslo serve`` was started with.

    Args:
        config: These options.
        is_diffusion: Whether the source of affinities is a diffusion model.
    """
    known, fields = config.flat, option_fields()
    described = []
    for each in CHOICES:
        if each.is_diffusion and not is_diffusion:
            continue
        kind, field = fields[each.name]
        del kind
        words = field.metadata.get("choices") or get_args(field.type)
        if each.name == "templates":
            words = _TEMPLATES
        value = known[each.name]
        described.append(
            {
                "name": each.name,
                "title": each.title,
                "help": each.help,
                "value": value if not isinstance(value, tuple) else "imagenet",
                "low": each.low,
                "high": each.high,
                "step": each.step,
                "whole": field.type is int,
                "words": list(words) if isinstance(value, str | tuple) else [],
                "modes": list(each.modes),
                "live": each.is_live,
                "logarithmic": each.is_logarithmic,
            }
        )
    return described
