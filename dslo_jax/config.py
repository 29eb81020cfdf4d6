"""Every choice of the method in one frozen, hashable dataclass.

Where the paper leaves a choice open, ``docs/method.md`` says which reading is the
default, and why.
"""

import dataclasses
import difflib
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from dslo_jax.errors import OptionError


SOLVER_FIELDS = (
    *("mode", "kl_direction", "epsilon", "path_steps", "tolerance", "norm"),
    *("threshold", "criterion", "balancing_steps", "velocity_steps"),
)
"""What the stage of the solvers depends on."""

Mode = Literal["velocity", "path", "fused", "kl", "logits"]
ClipAttention = Literal["kk_mean", "qq_mean", "qk_mean", "vanilla"]

# What the solvers can hold: counts are int32, and a float32 square must not overflow.
_MAX_INT = 2**31 - 1
_MIN_FLOAT, _MAX_FLOAT = 1e-30, 1e30


@dataclass(frozen=True)
class SegmenterConfig:
    """How a photo and a list of classes become a label map.

    Args:
        mode: Discrepancy that is turned into labels: maximum ``velocity`` (Eq. 12),
            optimal ``path`` (Eq. 3), both ``fused``, ``kl`` (Eq. 2), or the ``logits``
            themselves (the baseline).
        clip_attention: Attention of the last CLIP block.
        short_side: Shorter side of the photo that CLIP sees, in pixels.
        resample: How the photo is resized for the networks.
        templates: ``"imagenet"`` for the 80 of OpenAI, ``"single"`` for one, or your
            own, each with one ``{}``.
        early_rejection: Drop classes that win no patch (Algorithm 1, line 2).
        rejection_share: Share of the patches, in [0, 1], that a class must exceed to
            survive early rejection; what wins most always does.
        suppression: How low-confidence patches are told (NMS).
        suppression_threshold: Confidence below which a patch is noise, in [0, 1].
        source_scale: Factor on the logits before the softmax over patches.
        affinity_size: Side of the square photo whose self-attention is read, in pixels;
            a multiple of 64, and of the patches of DINO, DINOv2 or CLIP.
        timestep: Diffusion timestep of the single pass, in [0, 999]; 0 where the
            attention is no diffusion model's.
        affinity_layers: Attention modules and their weights; empty for the first two
            of the last block of Stable Diffusion, half each, and for the last layer of
            other networks.
        affinity_temperature: Softens (> 1) or sharpens (< 1) the affinity; 1 is off.
        epsilon: Regulariser of the optimal transport.
        path_steps: Most Sinkhorn steps.
        tolerance: Sinkhorn stops at this error; 0 runs exactly ``path_steps``.
        norm: Normalisation of the path (the ``Norm.`` of Eq. 3).
        threshold: The paper's tau, in (0, 1].
        criterion: When a patch has converged: its state exceeds ``threshold``
            (``saturation``), or changes by at most that (``increment``, Eq. 12).
        balancing_steps: Rounds of proportional fitting (Eq. 11).
        velocity_steps: Most steps of the Markov chain.
        kl_direction: ``source_to_target`` is f ln(f / f_t), which rises with the
            logits; ``target_to_source`` is Eq. 2 to the letter, which falls.
        upsampling: From the patch grid to the photo: ``bilateral`` (Eq. 23 over
            low-resolution samples), ``dense`` (over all pixels of a window), or
            ``bilinear``.
        spatial_variance: Spatial variance of the bilateral weights, in patches squared.
        range_variance: Colour variance of the bilateral weights, RGB in [0, 1].

    Raises:
        OptionError: A value is out of its range; the message names both.
    """

    mode: Mode = "velocity"
    clip_attention: ClipAttention = "kk_mean"
    short_side: int = 336
    resample: Literal["antialias", "bilinear", "area"] = "antialias"
    templates: Literal["imagenet", "single"] | tuple[str, ...] = "imagenet"
    early_rejection: bool = True
    rejection_share: float = 0.0
    suppression: Literal["minmax", "softmax", "relative", "none"] = "relative"
    suppression_threshold: float = 0.9
    source_scale: float = 1.0
    affinity_size: int = 512
    timestep: int = 0
    affinity_layers: tuple[tuple[str, float], ...] = ()
    affinity_temperature: float = 1.0
    epsilon: float = 0.1
    path_steps: int = 50
    tolerance: float = 1e-5
    norm: Literal["none", "sum", "minmax", "max"] = "minmax"
    threshold: float = 0.3
    criterion: Literal["saturation", "increment"] = "saturation"
    balancing_steps: int = 15
    velocity_steps: int = 1000
    kl_direction: Literal["source_to_target", "target_to_source"] = "source_to_target"
    upsampling: Literal["bilateral", "dense", "bilinear"] = "bilateral"
    spatial_variance: float = 1.0
    range_variance: float = 0.1

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        for name in ("short_side", "path_steps", "balancing_steps", "velocity_steps"):
            _check_range(name, getattr(self, name), 1, _MAX_INT)
        for name in ("source_scale", "affinity_temperature", "epsilon"):
            _check_range(name, getattr(self, name), _MIN_FLOAT, _MAX_FLOAT)
        for name in ("spatial_variance", "range_variance"):
            _check_range(name, getattr(self, name), _MIN_FLOAT, _MAX_FLOAT)
        _check_range("tolerance", self.tolerance, 0, _MAX_FLOAT)
        _check_range("rejection_share", self.rejection_share, 0, 1)
        _check_range("suppression_threshold", self.suppression_threshold, 0, 1)
        _check_range("threshold", self.threshold, 0, 1, open_left=True)
        _check_range("timestep", self.timestep, 0, 999)
        _check_range("affinity_size", self.affinity_size, 64, _MAX_INT)
        if self.affinity_size % 64:
            raise OptionError(
                "O01",
                f"affinity_size = {self.affinity_size} is not a multiple of 64; use "
                f"{round(self.affinity_size / 64) * 64}",
            )
        for field in dataclasses.fields(self):
            if field.type is float:  # 1 and 1.0 are the same choice
                object.__setattr__(self, field.name, float(getattr(self, field.name)))

    @property
    def needs_affinity(self) -> bool:
        """Whether the mode uses self-attention at all."""
        return self.mode == "velocity" or self.needs_path

    @property
    def needs_path(self) -> bool:
        """Whether the mode solves for an optimal path."""
        return self.mode in ("path", "fused")

    def of_solver(self) -> "SegmenterConfig":
        """The choices of the solvers, all others at their defaults.

        Configurations that differ elsewhere share a compiled solver.
        """
        return SegmenterConfig(**{name: getattr(self, name) for name in SOLVER_FIELDS})

    @classmethod
    def from_toml(
        cls, path: Path, *, base: "SegmenterConfig | None" = None
    ) -> "SegmenterConfig":
        """Read a configuration file: one ``name = value`` a line.

        Args:
            path: A TOML file whose keys are fields of this class.
            base: Where the fields that the file leaves out come from; the defaults of
                this class when ``None``.

        Raises:
            OptionError: The file is missing or is not TOML (``O04``), a key is unknown
                (``O02``) or a value has the wrong type or range (``O03``, ``O01``).
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
            values = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise OptionError("O04", f"cannot read {path}: {error}") from error
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise OptionError("O02", _unknown_key(path, text, name, names))
        try:
            chosen = {name: _to_tuple(value) for name, value in values.items()}
            return dataclasses.replace(base or cls(), **chosen)
        except OptionError as error:
            name = str(error).split("] ", 1)[1].split(" ", 1)[0]
            where = f"{path}:{_line_of(text, name)}: "
            message = str(error).split("] ", 1)[1]
            raise OptionError(error.code, where + message) from error


def _unknown_key(path: Path, text: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return f"{path}:{_line_of(text, name)}: unknown option {name!r}; {hint}"


def _line_of(text: str, name: str) -> int:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.split("=")[0].strip().strip("\"'[]") == name:
            return number
    return 1


def _to_tuple(value: Any) -> Any:
    return tuple(map(_to_tuple, value)) if isinstance(value, list) else value


def _check_range(
    name: str,
    value: int | float,
    low: int | float,
    high: int | float,
    *,
    open_left: bool = False,
) -> None:
    inside = low < value <= high if open_left else low <= value <= high
    if not inside:  # nor is NaN
        bracket = "(" if open_left else "["
        raise OptionError(
            "O01",
            f"{name} = {value} is out of range; expected {bracket}{low}, {high}]",
        )


def _check_type(name: str, value: Any, kind: Any) -> None:
    if not _matches(value, kind):
        raise OptionError("O03", f"{name} = {value!r}; expected {_describe(kind)}")


def _matches(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_matches(value, option) for option in inner)
    if origin is Literal:
        return value in inner and isinstance(value, str)
    if origin is tuple and inner[-1] is Ellipsis:
        return isinstance(value, tuple) and all(_matches(v, inner[0]) for v in value)
    if origin is tuple:
        return (
            isinstance(value, tuple)
            and len(value) == len(inner)
            and all(map(_matches, value, inner))
        )
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_describe, get_args(kind)))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list of " + " and ".join(
            _describe(part) for part in get_args(kind) if part is not Ellipsis
        )
    return {float: "a number", int: "a whole number", bool: "true or false"}.get(
        kind, "text"
    )
