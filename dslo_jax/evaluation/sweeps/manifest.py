"""The header of the journal of an evaluation, on which its records depend."""

import hashlib
from collections.abc import Mapping
from typing import Any

from dslo_jax.config import SegmenterConfig
from dslo_jax.evaluation.datasets.samples import SampleSet
from dslo_jax.runs import WHOLE, Shard


def header_of(
    samples: SampleSet,
    config: SegmenterConfig,
    circumstances: Mapping[str, Any],
    shard: Shard = WHOLE,
) -> dict[str, Any]:
    """The header of the journal of an evaluation; further modes may join it.

    Args:
        samples: The photos of all shards.
        config: Of every mode, but for the mode.
        circumstances: From ``describe``; nothing where saved labels are scored, which
            then are those of whatever the journal says.
        shard: The part of the photos that the journal is for.
    """
    names = "\n".join(samples.names).encode("utf-8", "surrogateescape")
    return {
        **circumstances,
        "dataset": samples.describe(),
        "names": hashlib.sha256(names).hexdigest(),
        "classes": [list(names) for names in samples.classes.synonyms],
        "config": config.flat | {"mode": None},
        **({} if shard == WHOLE else {"shard": shard.label}),
    }
