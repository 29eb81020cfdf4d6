"""The comparisons of the paper, and comparisons of choices that it leaves open."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dslo_jax.attention import Layers, find_layers, short_name
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.evaluation.sweeps.cells import Attention, Cell, Oracle
from dslo_jax.evaluation.sweeps.table import (
    MODES,
    Build,
    Offer,
    Row,
    Table,
    vary,
    vary_option,
    vary_size,
)


def build_tables(
    base: SegmenterConfig,
    layers: tuple[str, ...],
    names: Iterable[str] = (),
    *,
    attentions: tuple[Attention, ...] = (Attention("base"),),
    has_proxy: bool = False,
) -> tuple[Table, ...]:
    """Build tables that vary a base configuration.

    Args:
        base: The configuration.
        layers: See ``Offer``; empty if the attention is not from a diffusion model.
        names: Names of tables; default: all tables that are possible for the base.
        attentions: See ``Offer``.
        has_proxy: See ``Offer``.

    Raises:
        ValueError: A name is unknown.
        OptionError: A table needs a diffusion model (``O05``).
    """
    named = tuple(names)
    unknown = [name for name in named if name not in TABLES]
    if unknown:
        raise ValueError(f"there is no table {unknown}; tables: {', '.join(TABLES)}")
    impossible = () if layers else _OF_DIFFUSION
    refused = [name for name in named if name in impossible]
    if refused:
        raise OptionError(
            "O05",
            f"table {refused[0]!r} compares choices of a diffusion model, but the "
            "attention of this model is from another network; leave this table out",
        )
    offer = Offer(layers, attentions, has_proxy)
    return tuple(
        Table(name, TABLES[name].title, *TABLES[name].build(base, offer))
        for name in named or (name for name in TABLES if name not in impossible)
    )


_OF_DIFFUSION = ("layers", "timestep")


@dataclass(frozen=True)
class _Recipe:
    title: str
    build: Build


def _components(base: SegmenterConfig, offer: Offer):
    """Table 2: each row adds one component to the one before.

    Row I of the paper has the unchanged attention of CLIP, and rows V and VI have the
    k-k attention of Table 3, so both attentions are columns. Early rejection is on from
    row II. The second row is not in the paper; it shows the gain by rejection and
    upsampling.
    """
    bilinear = {"upsampling": "bilinear"}
    plain = bilinear | {"suppression": "none"}
    rows = {
        "I: logits": _PLAIN_LOGITS,
        "I + rejection + JBU": {"mode": "logits"},
        "II: I + KL": plain | {"mode": "kl"},
        "III: II + NMS": bilinear | {"mode": "kl"},
        "IV: III + JBU": {"mode": "kl"},
        "V: IV + O.P.": {"mode": "path"},
        "VI: IV + M.V.": {"mode": "velocity"},
        "VII: V + VI": {"mode": "fused"},
    }
    attentions = dict.fromkeys(("vanilla", base.clip.attention))
    columns = {name: {"clip_attention": name} for name in attentions}
    return vary(rows, columns)(base, offer)


def _foundations(base: SegmenterConfig, offer: Offer):
    """Attention of other networks, with their default layers and without noise.

    The first row is row I of Table 2: the logits of the unchanged CLIP.
    """
    none: dict[str, Any] = {**_PLAIN_LOGITS, "clip_attention": "vanilla"}
    rows = [Row("none", (Cell(base.with_options(**none)), None))]
    for attention in offer.attentions:
        own: dict[str, Any] = {
            "timestep": 0,
            "noise_seed": -1,
            "affinity_layers": (),
            "affinity_size": attention.size,
        }
        cells = (
            Cell(
                base.with_options(**mode, **(own if attention.key else {})),
                attention=attention.key,
            )
            for mode in MODES.values()
        )
        rows.append(Row(attention.label, tuple(cells)))
    return tuple(MODES), tuple(rows)


def _versatility(base: SegmenterConfig, offer: Offer):
    """Sec. 8: the logits of other methods, alone and with the method.

    Alone is each pixel's greatest logit, resampled bilinearly: no background threshold
    and no refinement, which some of these methods add.
    """
    columns = {
        "alone": _PLAIN_LOGITS,
        "+ O.P.": MODES["O.P."],
        "+ M.V.": MODES["M.V."],
    }
    return vary_option("clip_attention", offer.logits, columns)(base, offer)


def _layers(base: SegmenterConfig, offer: Offer):
    """Table 3: attention weights of the five self-attentions at full resolution."""
    layers = offer.layers
    choices: dict[str, Layers] = {short_name(name): ((name, 1.0),) for name in layers}
    up = [name for name in layers if name.startswith("up")]
    choices["up0 + up1"] = tuple((name, 0.5) for name in up[:2])
    choices["all, equal"] = tuple((name, 1 / len(layers)) for name in layers)
    own = base.affinity.layers
    own = find_layers(own, layers, "this network") if own else own
    if own not in ((), *choices.values()):
        choices["base"] = own
    rows = {label: {"affinity_layers": choice} for label, choice in choices.items()}
    return vary(rows)(base, offer)


_NMS_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


def _suppression(base: SegmenterConfig, offer: Offer):
    """The variants of the NMS at several thresholds; 0 is no NMS."""
    columns = {
        f"{reading}, {mode}": {"suppression": reading, **choice}
        for reading in ("minmax", "softmax", "relative")
        for mode, choice in MODES.items()
    }
    swept = vary_option("suppression_threshold", _NMS_THRESHOLDS, columns)
    names, rows = swept(base, offer)
    without = [
        Cell(base.with_options(suppression="none", mode=column["mode"]))
        for column in columns.values()
    ]
    return names, (Row("none", tuple(without), 0.0), *rows)


def _oracles(base: SegmenterConfig, _: Offer):
    """Scores if some steps were perfect."""
    rows = []
    for choice in _ORACLES:
        cells = []
        for mode in MODES.values():
            config = base.with_options(**mode)
            if "affinity" in choice:
                # The true chain is at rest after one step within a segment, and patches
                # of other segments never arrive.
                config = config.with_options(velocity_steps=4)
            cells.append(Cell(config, frozenset(choice)))
        rows.append(Row(" + ".join(choice) or "none", tuple(cells)))
    return tuple(MODES), tuple(rows)


def _grid(base: SegmenterConfig, _: Offer):
    """The true map of patches, upsampled to the photo: the loss by the grid."""
    rows = []
    for label, choice in _UPSAMPLINGS.items():
        config = base.with_options(**choice)
        cells = (
            Cell(config, frozenset({"map"})),
            Cell(config, frozenset({"shares"})),
        )
        rows.append(Row(label, cells))
    return ("majority", "shares"), tuple(rows)


_UPSAMPLINGS: dict[str, dict[str, Any]] = {
    "bilinear": {"upsampling": "bilinear"},
    **{
        f"{kind}, {spatial}, {colour}": {
            "upsampling": kind,
            "spatial_variance": spatial,
            "range_variance": colour,
        }
        for kind, spatial, colour in (
            *(("bilateral", 1.0, colour) for colour in (0.003, 0.01, 0.02, 0.1)),
            *(("bilateral", 2.0, colour) for colour in (0.003, 0.01, 0.02, 0.1)),
            ("dense", 1.0, 0.1),
            ("dense", 2.0, 0.02),
        )
    },
}
_ORACLES: tuple[tuple[Oracle, ...], ...] = (
    (),
    ("classes",),
    ("seeds",),
    ("affinity",),
    ("classes", "seeds"),
    ("classes", "affinity"),
    ("seeds", "affinity"),
    ("classes", "seeds", "affinity"),
)
_PLAIN_LOGITS: dict[str, Any] = {
    **{"mode": "logits", "early_rejection": False},
    **{"upsampling": "bilinear", "suppression": "none"},
}
# Those of Tables 3 and 4; "origin" may be either of the first two. All others are rows
# of the table "versatility".
_ATTENTIONS = ("vanilla", "qk_mean", "qq_mean", "kk_mean", "maskclip")
_TIMESTEPS = (0, 25, 50, 100, 150, 200, 300, 500, 700)
_TAUS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_REJECTION_SHARES = (0.0, 0.001, 0.003, 0.01, 0.03)
_SCALES = (1.0, 3.0, 10.0, 20.0, 30.0, 50.0, 100.0)
_EPSILONS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0)
_VELOCITY, _PATH = {"M.V.": MODES["M.V."]}, {"O.P.": MODES["O.P."]}
_CRITERIA = {
    criterion: {"mode": "velocity", "criterion": criterion}
    for criterion in ("saturation", "increment")
}

TABLES: dict[str, _Recipe] = {
    "components": _Recipe("Components (Table 2)", _components),
    "divergence": _Recipe(
        "Direction of the divergence (Eq. 2)",
        vary_option(
            "kl_direction",
            ("source_to_target", "target_to_source"),
            {"KL": {"mode": "kl"}},
        ),
    ),
    "attention": _Recipe(
        "Attention of the last CLIP block (Tables 3, 4)",
        vary_option("clip_attention", _ATTENTIONS),
    ),
    "versatility": _Recipe(
        "Logits of other methods, alone and with ours (Sec. 8)", _versatility
    ),
    "layers": _Recipe("Weights of the self-attentions (Tables 3, 4)", _layers),
    "timestep": _Recipe(
        "Diffusion timestep (Figures 5 a, 6 a)", vary_option("timestep", _TIMESTEPS)
    ),
    "resolution": _Recipe(
        "Side of the photo for the affinity (Figures 5 b, 6 b)",
        vary_size("affinity_size", (1 / 2, 1.0, 3 / 2), unit=64),
    ),
    "foundation": _Recipe(
        "Where self-attention comes from (Figures 5 d, 6 c)", _foundations
    ),
    "temperature": _Recipe(
        "Temperature of the affinity",
        vary_option("affinity_temperature", (0.65, 0.75, 0.85, 1.0, 1.25)),
    ),
    "threshold": _Recipe(
        "Threshold tau (Figure 5 c)", vary_option("threshold", _TAUS, _CRITERIA)
    ),
    "balancing": _Recipe(
        "Rounds of proportional fitting (Eq. 11)",
        vary_option("balancing_steps", (5, 15, 50), _VELOCITY),
    ),
    "suppression": _Recipe("Threshold of the NMS, by reading", _suppression),
    "scale": _Recipe(
        "Scale of the softmax over patches (Eq. 14)",
        vary_option("source_scale", _SCALES),
    ),
    "norm": _Recipe(
        "Norm. of Eq. 3", vary_option("norm", ("none", "sum", "minmax", "max"), _PATH)
    ),
    "epsilon": _Recipe("Epsilon (Eq. 6)", vary_option("epsilon", _EPSILONS, _PATH)),
    "upsampling": _Recipe("Upsampling and its variances (Eq. 23)", vary(_UPSAMPLINGS)),
    "short_side": _Recipe(
        "Short side of the photo for CLIP",
        vary_size("short_side", (1 / 2, 2 / 3, 5 / 6, 1.0, 7 / 6, 4 / 3), unit=1),
    ),
    "rejection": _Recipe(
        "Category early rejection (Algorithm 1), by least share of the patches",
        vary(
            {"off": {"early_rejection": False}}
            | {str(share): {"rejection_share": share} for share in _REJECTION_SHARES}
        ),
    ),
    "oracles": _Recipe("Steps replaced by the truth", _oracles),
    "grid": _Recipe("The true map, upsampled: the ceiling of the grid", _grid),
}
