"""A folder of photos of all sizes compiles few programs."""

import numpy as np
import pytest

from dslo_jax import Segmenter, scenes
from dslo_jax.pipeline import programs
from dslo_jax.pipeline.sequences import sequence_lengths
from dslo_jax.prompts import parse_classes


MOST = 12
"""Programs that 60 photos may compile."""

CLASSES = parse_classes([(each.name, *each.synonyms) for each in scenes.CLASSES])


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
    names = {"embed": "text", "features": "clip", "encode": "vae", "attend": "unet"}
    return [(key, programs.network_stage(*key)) for key in names.items()]


@pytest.fixture(scope="module")
def segmented(photos):
    """Results and programs of the photos, by the size of a batch and the mode."""
    found = {}
    for mode, batch_size in (("velocity", 1), ("velocity", 8)):
        # Networks of its own: no program is there from another test.
        loaded = Segmenter.from_pretrained("demo", mode=mode)
        # Without a world, which has programs of its own for its notes.
        segmenter = Segmenter(loaded.networks, loaded.config)
        config = {"short_side": 64 + batch_size, "affinity_size": 64}
        before = programs_by_stage()
        results = segmenter.batch(photos, CLASSES, batch_size=batch_size, **config)
        compiled = {
            stage: count - before.get(stage, 0)
            for stage, count in programs_by_stage().items()
        }
        found[mode, batch_size] = results, compiled
    return found


def test_sixty_photos_compile_few_programs(segmented):
    lengths = sequence_lengths(65, 8)[:-1]  # none is as long as the longest
    for key, (_, compiled) in segmented.items():
        assert sum(compiled.values()) <= MOST, (key, compiled)
        assert compiled["features"] <= len(lengths), (key, compiled)
        others = [count for stage, count in compiled.items() if stage != "features"]
        assert max(others) <= 1, (key, compiled)
    # Not everything was there already from other tests of this process.
    assert segmented["velocity", 1][1]["features"] > 1
