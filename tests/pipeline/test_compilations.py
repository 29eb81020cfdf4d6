"""A folder of photos of all sizes compiles few programs."""

import numpy as np
import pytest

from dslo_jax import Segmenter, SegmenterConfig, pairs, scenes
from dslo_jax.logits import ClipOptions
from dslo_jax.pipeline import programs
from dslo_jax.pipeline.sequences import sequence_lengths
from dslo_jax.prompts import load_tokenizer, parse_classes
from tests.pipeline.colours import colour_networks


MOST = 12
"""Programs that 60 photos may compile."""

CLASSES = parse_classes([each.names for each in scenes.CLASSES])


@pytest.fixture(scope="module")
def photos():
    """Photos of 60 sizes, tiny because only their shapes matter; up to 4.5 : 1."""
    sides = np.random.default_rng(0).integers(32, 145, (60, 2)).tolist()
    sizes = [(height, width) for height, width in sides]
    return [scenes.draw_scene(i, size=size).pixels for i, size in enumerate(sizes)]


def programs_by_stage():
    """Number of programs of each stage so far; those of networks by their method."""
    found = {part: each.num_compilations for (part, _), each in _networks()}
    for name in ("LOGITS", "SOURCES", "CHOSEN", "DISCREPANCY", "LABELS"):
        found[name] = getattr(programs, name).num_compilations
    return found


def _networks():
    names = {"embed": "text", "features": "features"}
    names |= {"encode": "encode", "attend": "attend"}
    return [(key, programs.network_stage(*key)) for key in names.items()]


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_sixty_photos_compile_few_programs(photos, batch_size):
    # Shapes decide what is compiled, so that networks which compile quickly will do.
    # No other test has this short side, so that no program is there from another one.
    tokenizer = load_tokenizer(pairs.BUNDLED["demo"] / "clip")
    segmenter = Segmenter(colour_networks(tokenizer), SegmenterConfig())
    short_side = 128 + batch_size
    config = {"short_side": short_side, "affinity_size": 64}
    before = programs_by_stage()
    segmenter.batch(photos, CLASSES, batch_size=batch_size, **config)
    compiled = {
        stage: count - before.get(stage, 0)
        for stage, count in programs_by_stage().items()
    }
    every = sequence_lengths(ClipOptions(short_side=short_side), 8)
    lengths = every[:-1]  # none is the longest
    assert sum(compiled.values()) <= MOST, compiled
    assert compiled["features"] <= len(lengths), compiled
    others = [count for stage, count in compiled.items() if stage != "features"]
    assert max(others) <= 1, compiled
    # Not everything was there already from other tests of this process.
    assert compiled["features"] > 1
