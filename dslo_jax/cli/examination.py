"""The facts that ``dslo doctor`` shows, as plain values without private things."""

import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from dslo_jax import hub
from dslo_jax.bench.machine import commit_of_code, processor_name, usable_cores
from dslo_jax.bench.memory import available_bytes, total_bytes
from dslo_jax.cache import folders
from dslo_jax.cli import accelerators
from dslo_jax.cli.weights import state_of
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import DsloError
from dslo_jax.hub.repositories import cache_folder, is_offline
from dslo_jax.pairs import CONFIG_NAME


SCHEMA = "dslo.doctor.v1"

_PACKAGES = (
    *("dslo-jax", "jax", "jaxlib", "flax", "numpy", "pillow", "safetensors"),
    *("transformers", "tokenizers", "huggingface_hub", "tyro", "rich"),
    *("torch", "diffusers", "pyarrow", "pillow-heif", "matplotlib", "ott-jax"),
    *("starlette", "uvicorn", "ray", "nvidia-ml-py"),
)
EXTRAS = {
    **dict.fromkeys(("torch", "diffusers"), "torch"),
    **dict.fromkeys(("starlette", "uvicorn"), "serve"),
    **{"pyarrow": "parquet", "pillow-heif": "heic", "matplotlib": "plot"},
    **{"ray": "ray", "nvidia-ml-py": "energy"},
}
"""The extra of dslo-jax that installs a package, if one does."""

# What changes the work of dslo, and holds no secret.
_SETTINGS = (
    *("DSLO_CACHE", "DSLO_CACHE_SIZE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"),
    *("HF_HUB_OFFLINE", "HF_ENDPOINT", "JAX_PLATFORMS", "XLA_FLAGS"),
    *("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_X64", "CUDA_VISIBLE_DEVICES"),
    *("XLA_PYTHON_CLIENT_MEM_FRACTION", "OMP_NUM_THREADS"),
)
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)|\bhf_\w{8,}")


def examine() -> dict[str, Any]:
    """Everything that can be told without running a network; nothing is downloaded."""
    return without_secrets(
        {
            "schema": SCHEMA,
            "system": _system(),
            "devices": _devices(),
            "unused": accelerators.unused(),
            "versions": {name: _version(name) for name in _PACKAGES},
            "cache": _cache(),
            "weights": _weights(),
            "configuration": _configuration(),
            "settings": _settings(),
        }
    )


def without_secrets(value: Any) -> Any:
    """Plain values in which no text has a home folder, a token or a password.

    Args:
        value: Texts, numbers, and lists and dictionaries of them.

    Returns:
        The same, with ``~`` for the home folder and ``***`` for a secret.
    """
    if isinstance(value, dict):
        return {key: without_secrets(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(each) for each in value]
    if not isinstance(value, str):
        return value
    home = os.path.expanduser("~")
    for folder in {home, os.path.realpath(home)} - {"/", "~", ""}:
        value = re.sub(rf"{re.escape(folder)}(?![\w.-])", "~", value)
    return _CREDENTIALS.sub("***", value)


def _system() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "in_virtual_environment": sys.prefix != sys.base_prefix,
        "commit": commit_of_code(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_bytes": total_bytes(),
        "available_bytes": available_bytes(),
    }


def _devices() -> list[dict[str, Any]] | str:
    """The devices of JAX by the names that ``--device`` takes; or the error."""
    try:
        devices = jax.local_devices()
    except Exception as error:  # backends raise what they like
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return [
        {
            "name": f"{device.platform}:{place}",
            "kind": device.device_kind,
            "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        }
        for place, device in enumerate(devices)
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cache() -> dict[str, Any]:
    """Our own cache; see ``docs/cache.md``."""
    root = folders.root()
    if root is None:
        return {"folder": None}
    try:
        limit = folders.size_limit()
    except DsloError as error:
        return {"folder": str(root), "error": str(error)}
    content = {kind: folders.content_of(root / kind) for kind in folders.KINDS}
    return {
        "folder": str(root),
        "content": {kind: found._asdict() for kind, found in content.items()},
        "limit_bytes": limit,
        "free_bytes": _free(root),
    }


def _weights() -> dict[str, Any]:
    """Which presets are on this machine, by the names and sizes of their files."""
    folder = cache_folder()
    return {
        "folder": str(folder),
        "free_bytes": _free(folder),
        "offline": is_offline(),
        "presets": {name: state_of(preset) for name, preset in hub.PRESETS.items()},
    }


def _configuration() -> dict[str, str]:
    """The configuration files that would be used from here, and their faults."""
    path = Path(CONFIG_NAME)
    if not path.exists():
        return {}
    try:
        SegmenterConfig.from_toml(path)
    except DsloError as error:
        return {str(path): str(error)}
    return {str(path): "can be used"}


def _settings() -> dict[str, str]:
    known = {name: os.environ[name] for name in _SETTINGS if name in os.environ}
    return known | {name: "***" for name in _SECRETS if os.environ.get(name)}


def _free(folder: Path) -> int | None:
    """Free bytes on the disk of a folder, which need not exist."""
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None
