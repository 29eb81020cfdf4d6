import numpy as np
import pytest

from dslo_jax import scenes
from dslo_jax.evaluation import SceneSet


def test_all_classes_with_their_synonyms():
    samples = SceneSet(range(3, 5))
    assert samples.classes.titles == scenes.NAMES
    assert "lamb" in samples.classes.names
    first, second = samples
    np.testing.assert_array_equal(first.photo.pixels, scenes.draw_scene(3).pixels)
    np.testing.assert_array_equal(second.truth, scenes.draw_scene(4).labels)
    assert (first.name, second.name) == ("scene 3", "scene 4")


def test_things_and_a_background_that_is_told_by_the_rest():
    samples = SceneSet(range(3), "foreground", (48, 64))
    assert samples.classes.titles[1:] == scenes.FOREGROUND
    assert {"sky", "ocean", "meadow"} <= set(samples.classes.synonyms[0])
    for sample in samples:
        shown = {samples.classes.titles[label] for label in np.unique(sample.truth)}
        assert shown <= {"background", *scenes.FOREGROUND}
        assert sample.truth.shape == (48, 64)


@pytest.mark.parametrize("protocol", ["all", "foreground"])
def test_description_tells_the_photos_apart(protocol):
    described = SceneSet(range(5, 9), protocol, (48, 64)).describe()
    assert described == {
        "name": "scenes",
        "version": scenes.VERSION,
        "protocol": protocol,
        "size": [48, 64],
        "first_seed": 5,
        "photos": 4,
    }
