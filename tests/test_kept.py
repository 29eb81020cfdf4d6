"""A kept photo gives what the segmenter gives, and computes only what has changed."""

import numpy as np
import pytest

from dslo_jax import DsloError, Segmenter, scenes
from dslo_jax.pipeline import Memory, num_compilations


WORDS = ["sky", ("sea", "ocean"), "house", "grass", "tree"]


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained("demo")


@pytest.fixture(scope="module")
def photo():
    return scenes.draw_scene(9, size=(128, 160)).pixels


def stages_of(kept, classes, **options):
    told = []
    kept(classes, announce=lambda stage, _: told.append(stage), **options)
    return set(told)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "fused", "epsilon": 0.2, "threshold": 0.1},
        {"mode": "logits", "upsampling": "bilinear"},
    ],
    ids=lambda options: options.get("mode", "velocity"),
)
def test_results_are_those_of_the_segmenter(segmenter, photo, options):
    kept = segmenter.keep(photo)
    kept(WORDS[:3])  # what is kept of other words must not leak into these
    found, expected = kept(WORDS, **options), segmenter(photo, WORDS, **options)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.discrepancy, expected.discrepancy, atol=1e-6)
    assert found.notes == expected.notes
    assert found.config == expected.config


def test_another_number_needs_the_solver_and_the_labels_alone(segmenter, photo):
    kept = segmenter.keep(photo)
    assert {"clip", "vae", "unet", "solver"} <= stages_of(kept, WORDS)
    assert stages_of(kept, WORDS) <= {"logits", "fold", "labels"}
    assert stages_of(kept, WORDS, threshold=0.5) <= {
        "logits",
        "solver",
        "fold",
        "labels",
    }
    assert {"clip", "vae", "unet"}.isdisjoint(stages_of(kept, ["sky", "sea"]))
    kept.forget()
    assert {"clip", "vae", "unet", "solver"} <= stages_of(kept, WORDS)


def test_another_number_compiles_nothing(segmenter, photo):
    kept = segmenter.keep(photo)
    for options in ({"threshold": 0.3}, {"mode": "path"}, {"mode": "propagation"}):
        kept(WORDS, **options)
    before = num_compilations()
    for number in (0.21, 0.37, 0.6):
        kept(WORDS, threshold=number)
        kept(WORDS, mode="path", epsilon=number)
        kept(WORDS, mode="propagation", propagation_alpha=number)
    assert num_compilations() == before


def test_a_click_uses_the_kept_attention(segmenter, photo):
    kept, told = segmenter.keep(photo), []
    kept(WORDS)
    found = kept.prompt([(30, 10)], announce=lambda stage, _: told.append(stage))
    assert {"vae", "unet", "clip"}.isdisjoint(told)
    expected = segmenter.prompt(photo, [(30, 10)])
    np.testing.assert_array_equal(found.velocity, expected.velocity)
    with pytest.raises(DsloError, match="outside the photo"):
        kept.prompt([(160, 0)])


def test_what_is_announced_may_end_a_call(segmenter, photo):
    def stop(stage, compiles):
        raise InterruptedError(stage)

    kept = segmenter.keep(photo)
    with pytest.raises(InterruptedError, match="clip"):
        kept(WORDS, announce=stop)
    assert kept(WORDS).labels.shape == (128, 160)


def test_numbers_out_of_range_are_refused(segmenter, photo):
    kept = segmenter.keep(photo)
    for number in (0, -1, 1.5, float("nan")):
        with pytest.raises(DsloError, match="threshold"):
            kept(WORDS, threshold=number)


def test_a_memory_forgets_what_was_used_longest_ago():
    memory, computed = Memory(2), []

    def use(step, key):
        memory.recall((step, key), lambda: computed.append((step, key)))

    for key in (1, 2, 1, 3, 1):  # 2 gives way to 3
        use("solved", key)
    use("logits", 1)
    assert computed == [("solved", 1), ("solved", 2), ("solved", 3), ("logits", 1)]
    use("solved", 2)
    assert computed[-1] == ("solved", 2)
