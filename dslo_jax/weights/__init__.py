"""Weights on disk: file formats, and modules that are filled from files."""

from dslo_jax.weights.choice import choose_files as choose_files
from dslo_jax.weights.module import (
    OneKey as OneKey,
    load_module as load_module,
    save_module as save_module,
)
from dslo_jax.weights.place import (
    config_source as config_source,
    open_weights as open_weights,
    read_config as read_config,
    read_object as read_object,
    side_folder as side_folder,
)
