"""Checks of a folder or a file: whether its checkpoint is complete, and its kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dslo_jax.empty_prompt import knows_empty_prompt
from dslo_jax.errors import CheckpointError
from dslo_jax.hub.presets import Kind
from dslo_jax.models.config_fields import model_type_of
from dslo_jax.models.dinov3_config import DINOV3_TYPE
from dslo_jax.models.vit_config import VIT_TYPES
from dslo_jax.weights import choose_files, open_weights, read_config


class Network(NamedTuple):
    """One network of a checkpoint.

    Attributes:
        folder: Its sub-folder; empty if the checkpoint is this one network.
        field: Field of its configuration that names its type.
        values: The allowed values of that field.
    """

    folder: str
    field: str
    values: tuple[str, ...]


TEXT_ENCODER = Network("text_encoder", "model_type", ("clip_text_model",))
"""The text encoder of a pipeline, needed only for the context of the empty prompt."""

NETWORKS: Mapping[Kind, tuple[Network, ...]] = {
    "clip": (Network("", "model_type", ("clip",)),),
    "diffusion": (
        Network("unet", "_class_name", ("UNet2DConditionModel",)),
        Network("vae", "_class_name", ("AutoencoderKL",)),
        TEXT_ENCODER,
    ),
    "vit": (Network("", "model_type", (*VIT_TYPES, DINOV3_TYPE, "clip_vision_model")),),
}
CONFIG_FILES = ("config.json", "open_clip_config.json")
"""Names of files that may hold the configuration of a network."""

_MAX_NAMES_SHOWN = 8
_WITHOUT_ATTENTION = (
    ", which has no self-attention; take a vision transformer of DINOv3, such as "
    "facebook/dinov3-vitb16-pretrain-lvd1689m"
)


def attention_of(place: Path) -> Kind:
    """Find the kind of the network in a folder or file, for its self-attention.

    The weights are not checked.

    Args:
        place: A folder, or one file of weights.

    Raises:
        CheckpointError: There is no network (``W01``), or it has another architecture
            (``W06``).
    """
    _require_place(place, "attention")
    if is_pipeline(place):
        return "diffusion"
    kinds: tuple[Kind, ...] = ("clip", "vit")
    known: dict[str, Kind] = {
        value: kind for kind in kinds for value in NETWORKS[kind][0].values
    }
    supported = (
        "a diffusers pipeline (unet/, vae/), or a config.json whose model_type is "
        f"{', '.join(known)}"
    )
    config = _config_of(place)
    if config is None:
        names = sorted(path.name for path in place.iterdir())[:_MAX_NAMES_SHOWN]
        held = f"holds {', '.join(names)}" if names else "is empty"
        raise CheckpointError("W01", f"{place} {held}; expected {supported}")
    found = model_type_of(config)
    if found not in known:
        hint = _WITHOUT_ATTENTION if found == "dinov3_convnext" else ""
        raise CheckpointError(
            "W06",
            f"the configuration of {place} has model_type {found!r}{hint}; expected "
            f"{supported}",
        )
    return known[found]


def check_folder(place: Path, kind: Kind) -> None:
    """Check that a checkpoint is complete, before any network is built.

    Only configurations and the headers of the weights are read. A CLIP may lack its
    tokenizer, because ``find_tokenizer`` finds another one.

    Args:
        place: A local folder; for all kinds but ``"diffusion"`` also one file.
        kind: As for ``resolve``.

    Raises:
        CheckpointError: Files are missing (``W01``; the message names all of them), a
            network is of another kind (``W06``), or weights cannot be used (``W03`` ...
            ``W08``).
    """
    if kind == "attention":
        kind = attention_of(place)
    _require_place(place, kind)
    networks = NETWORKS[kind]
    needs_tokenizer = kind == "diffusion"
    if kind == "diffusion" and knows_empty_prompt(place):
        networks = tuple(each for each in networks if each != TEXT_ENCODER)
        needs_tokenizer = False
    configs = {network: _config_of(place / network.folder) for network in networks}
    missing = [
        Path(network.folder, "config.json").as_posix()
        for network, config in configs.items()
        if config is None
    ]
    if needs_tokenizer and not has_tokenizer(place / "tokenizer"):
        missing.append("tokenizer/tokenizer.json")
    if missing:
        raise CheckpointError(
            "W01", f"{place} lacks {', '.join(missing)}{_hint(place, kind)}"
        )
    for network, config in configs.items():
        found = (config or {}).get(network.field)
        if network.field == "model_type":
            found = model_type_of(config or {})
        if found is not None and found not in network.values:
            raise CheckpointError(
                "W06",
                f"{place / network.folder / 'config.json'}: {network.field} is "
                f"{found!r}, expected {' or '.join(map(repr, network.values))}"
                f"{_hint(place, kind)}",
            )
        open_weights(place / network.folder)


def in_half(folder: Path, kind: Kind) -> bool:
    """Whether a network of a checkpoint is present only in half precision.

    Args:
        folder: A folder that passes ``check_folder``.
        kind: Kind of the checkpoint.
    """
    places = (folder / network.folder for network in NETWORKS[kind])
    return any(
        ".fp16." in name or ".bf16." in name
        for place in places
        if place.is_dir()
        for name in choose_files(path.name for path in place.iterdir())
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a CLIP tokenizer, in either layout."""
    old = ("vocab.json", "merges.txt")
    whole = (folder / "tokenizer.json").is_file()
    return whole or all((folder / name).is_file() for name in old)


def is_pipeline(place: Path) -> bool:
    """Whether a folder looks like a diffusers pipeline, complete or not."""
    parts = ("unet", "vae", "model_index.json")
    return any((place / part).exists() for part in parts)


def _require_place(place: Path, kind: Kind) -> None:
    if place.is_dir() or (place.is_file() and kind != "diffusion"):
        return
    if place.is_file():
        raise CheckpointError(
            "W01",
            f"{place} is a single file; expected the folder of a diffusers pipeline, "
            "with unet/, vae/, text_encoder/ and tokenizer/",
        )
    raise CheckpointError("W01", f"{place} is not a folder")


def _config_of(place: Path) -> Mapping[str, object] | None:
    """The configuration of a network, or ``None`` where there is none."""
    if not place.exists():
        return None
    try:
        return read_config(place)
    except CheckpointError as error:
        if error.code != "W08":
            raise
        folder = place if place.is_dir() else place.parent
        if any((folder / name).is_file() for name in CONFIG_FILES):
            raise  # there is a configuration, but it cannot be used
        return None


def _hint(place: Path, kind: Kind) -> str:
    """Hint about a folder of another kind, for an error."""
    if kind == "clip" and is_pipeline(place):
        return "; this is a diffusion pipeline, pass it with --attention"
    found = model_type_of(_config_of(place) or {})
    if kind == "clip" and found in (*VIT_TYPES, DINOV3_TYPE):
        return "; this is a vision transformer, pass it with --attention"
    if kind == "diffusion" and found == "clip":
        return "; this is a CLIP folder, pass it with --clip"
    return ""
