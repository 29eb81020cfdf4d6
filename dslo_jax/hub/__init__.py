"""From the name of a checkpoint to a folder on this machine, downloaded if need be."""

from dslo_jax.hub.names import (
    attention_of as attention_of,
    check_folder as check_folder,
    kind_of as kind_of,
    resolve as resolve,
    verify as verify,
)
from dslo_jax.hub.presets import (
    PRESETS as PRESETS,
    Kind as Kind,
    Mirror as Mirror,
    Preset as Preset,
)
