"""Compiled programs, kept on disk in JAX's persistent compilation cache.

JAX decides what is kept and under which key. The files are ours, because JAX writes a
file in place and never replaces one (jax-ml/jax#39880): a run that is killed while it
writes would leave a damaged file that is read, in vain, by every later run.
"""

import logging
from pathlib import Path
from typing import Any

import jax

from dslo_jax.cache import folders
from dslo_jax.cache.entries import Entries


logger = logging.getLogger(__name__)

_SUFFIX = "-cache"
# In JAX's defaults, programs that compile in less than a second are not kept; most of
# ours take 0.1 s.
_MIN_SECONDS = "jax_persistent_cache_min_compile_time_secs"
_DEFAULT_MIN_SECONDS = 1.0


def keep_programs(device: Any) -> None:
    """Keep the programs that JAX compiles from now on, and use those that were kept.

    Nothing happens if the user has chosen a folder for JAX
    (``JAX_COMPILATION_CACHE_DIR``) or has switched its cache off, or if ours is
    switched off (``DSLO_CACHE`` is empty) or cannot be used.

    Args:
        device: The JAX device that the programs run on.

    Raises:
        OptionError: ``DSLO_CACHE_SIZE`` is not a size (``O01``).
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None:
        return
    if not config.jax_enable_compilation_cache:
        return
    folder = folders.private_folder("compiled", folders.machine_key(device))
    if folder is None or not _use_checked_files(folder):
        return
    config.update("jax_compilation_cache_dir", str(folder))
    if getattr(config, _MIN_SECONDS) == _DEFAULT_MIN_SECONDS:
        config.update(_MIN_SECONDS, 0.0)


def _use_checked_files(folder: Path) -> bool:
    """Make JAX read and write the files of a folder with our functions.

    Returns:
        Whether this version of JAX has the place for them.
    """
    try:
        from jax._src import compilation_cache
        from jax._src.compilation_cache_interface import CacheInterface

        of_jax = compilation_cache.get_file_cache
    except (ImportError, AttributeError):
        logger.warning(
            "compiled programs are not kept: jax %s has another cache", jax.__version__
        )
        return False

    class CheckedFiles(CacheInterface):
        def __init__(self):
            self._path = folder
            self._entries = Entries(folder)

        def get(self, key: str) -> bytes | None:
            return self._entries.read(key + _SUFFIX)

        def put(self, key: str, value: bytes) -> None:
            self._entries.write(key + _SUFFIX, value)

    def get_file_cache(path: str) -> Any:
        return (CheckedFiles(), path) if path == str(folder) else of_jax(path)

    compilation_cache.get_file_cache = get_file_cache
    return True
