"""From the name of a checkpoint to files on this machine, downloaded if needed."""

from dslo_jax.hub.folders import (
    attention_of as attention_of,
    check_folder as check_folder,
)
from dslo_jax.hub.names import (
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
from dslo_jax.hub.repositories import source_of as source_of
from dslo_jax.hub.tokenizers import find_tokenizer as find_tokenizer
