import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints.vit import save_vit
from PIL import Image

from dslo_jax import Segmenter, SegmenterConfig, ops, pipeline
from dslo_jax.errors import (
    CheckpointError,
    ClassListError,
    DeviceError,
    OptionError,
    SolverError,
)
from dslo_jax.model_info import Checkpoint
from dslo_jax.pipeline import checks, programs
from dslo_jax.pipeline.stages import watch
from dslo_jax.solvers import OptimalPath
from dslo_jax.weights import open_weights
from tests.pipeline.conftest import CONFIG


CLASSES = ["cat", ("sofa", "couch"), "wall", "floor", "lamp"]


@pytest.mark.parametrize("mode", ["velocity", "path", "fused", "kl", "logits"])
def test_every_mode_gives_a_label_to_every_pixel(segmenter, make_photo, mode):
    result = segmenter(make_photo(50, 75), CLASSES, mode=mode)
    assert result.labels.shape == (50, 75)
    assert result.labels.dtype == np.int32
    assert set(np.unique(result.labels)) <= set(range(5))
    assert result.discrepancy.shape == (5, 8, 8)
    assert result.classes == ("cat", "sofa", "wall", "floor", "lamp")
    assert sum(report.area for report in result.reports) == pytest.approx(1)
    for report, values in zip(result.reports, result.discrepancy, strict=True):
        assert (values == -np.inf if report.rejected else np.isfinite(values)).all()
        assert not (report.rejected and report.area)
        solved = not report.rejected and mode not in ("kl", "logits")
        assert (report.num_steps > 0) == solved


def test_labels_are_the_argmax_of_the_upsampled_discrepancy(segmenter, make_photo):
    photo = make_photo(40, 56)
    result = segmenter(photo, CLASSES)
    maps = ops.joint_bilateral_upsample(
        jnp.asarray(result.discrepancy), photo.astype(np.float32) / 255
    )
    active = [i for i, report in enumerate(result.reports) if not report.rejected]
    expected = np.asarray(active)[np.argmax(np.asarray(maps)[active], axis=0)]
    np.testing.assert_array_equal(result.labels, expected)


def test_a_batch_equals_one_by_one(segmenter, make_photo):
    sizes = [(50, 75), (75, 50), (40, 160), (64, 64), (20, 300)]  # of four lengths
    photos = [make_photo(*size, seed=i) for i, size in enumerate(sizes)]
    batch = segmenter.batch(photos, CLASSES, batch_size=2)
    for photo, together in zip(photos, batch, strict=True):
        alone = segmenter(photo, CLASSES)
        np.testing.assert_array_equal(together.labels, alone.labels)
        np.testing.assert_allclose(
            together.discrepancy, alone.discrepancy, rtol=1e-4, atol=1e-7
        )
        assert together.num_steps == alone.num_steps


def test_a_batch_has_no_more_photos_than_there_are(segmenter, make_photo):
    photos = [make_photo(50, 75, seed=i) for i in range(3)]
    with watch() as calls:
        segmenter.batch(photos[:2], CLASSES, batch_size=4)
    (solver,) = [call for call in calls if call.stage == "solver"]
    assert solver.arguments[0].shape[0] == 2
    with watch() as calls:
        segmenter.batch(photos, CLASSES, batch_size=2)
    sizes = [call.arguments[0].shape[0] for call in calls if call.stage == "solver"]
    assert sizes == [2, 2]  # the second one is padded


def test_empty_batch_is_empty(segmenter):
    assert segmenter.batch([], CLASSES) == []


def test_another_photo_of_the_same_bucket_compiles_nothing(segmenter, make_photo):
    first = segmenter(make_photo(60, 90), CLASSES)
    before = pipeline.num_compilations()
    again = segmenter(make_photo(58, 87, seed=2), CLASSES)  # same size for CLIP
    survivors = [
        sum(not report.rejected for report in result.reports)
        for result in (first, again)
    ]
    assert survivors == [2, 2]  # of one bucket too
    assert pipeline.num_compilations() == before
    assert sum(timing.compile_seconds for timing in again.timings) == 0


def test_another_class_list_compiles_no_solver(segmenter, make_photo):
    photo = make_photo(60, 90)
    segmenter(photo, CLASSES)
    features = programs.network_stage("features", "clip")
    stages = (programs.DISCREPANCY, programs.LABELS, features)
    assert features.num_compilations > 0
    before = [stage.num_compilations for stage in stages]
    segmenter(photo, [*CLASSES, "chair"])  # of the same bucket, once rejected
    segmenter(make_photo(60, 90, seed=2), CLASSES)  # another support
    assert [stage.num_compilations for stage in stages] == before


def test_labels_do_not_depend_on_the_buckets(segmenter, make_photo, monkeypatch):
    photo = make_photo(50, 75)
    expected = segmenter(photo, CLASSES)
    monkeypatch.setattr(checks, "class_bucket", lambda count, classes: 11)
    monkeypatch.setattr(checks, "row_bucket", lambda count, patches: patches)
    wider = segmenter(photo, CLASSES)
    np.testing.assert_array_equal(wider.labels, expected.labels)
    assert wider.ties == expected.ties
    assert wider.num_steps == expected.num_steps


class ByPairs(OptimalPath):
    """Reads a row for each pair of a class and a patch, whatever is faster."""

    def fitted(self, counts):
        fitted = super().fitted(counts)
        return dataclasses.replace(fitted, support=None, pairs=counts.pairs)


def test_labels_do_not_depend_on_the_reading(segmenter, make_photo):
    """Rows for all classes at once, or one for each pair of a class and a patch."""
    photo = make_photo(50, 75)
    expected = segmenter(photo, CLASSES, mode="path")
    with watch() as calls:
        owned = segmenter(photo, CLASSES, discrepancy=ByPairs(norm="minmax"))
    (used,) = [c.static["discrepancy"] for c in calls if c.stage == "solver"]
    assert used.pairs > 0
    np.testing.assert_array_equal(owned.labels, expected.labels)
    assert owned.num_steps == expected.num_steps


def test_only_photos_that_no_kernel_can_solve_pay_for_logarithms(segmenter, make_photo):
    photo = make_photo(50, 75)

    def solve(epsilon):
        with watch() as calls:
            result = segmenter(photo, CLASSES, mode="path", epsilon=epsilon)
        solved = [
            call.static["discrepancy"] for call in calls if call.stage == "solver"
        ]
        return result, [each.domain for each in solved]

    small, domains = solve(1e-5)
    assert domains == ["kernel", "auto"]
    assert np.isfinite(small.discrepancy).any(axis=(1, 2)).any()
    assert solve(0.1)[1] == ["kernel"]


def test_class_order_only_permutes_the_labels(segmenter, make_photo):
    photo = make_photo(50, 75)
    straight = segmenter(photo, CLASSES)
    backward = segmenter(photo, CLASSES[::-1])
    same = 4 - backward.labels == straight.labels
    assert same.mean() >= 1 - straight.ties


def test_without_early_rejection_every_class_is_solved(segmenter, make_photo):
    result = segmenter(make_photo(50, 75), CLASSES, early_rejection=False)
    assert not any(report.rejected for report in result.reports)
    assert all(result.num_steps)


def test_one_class_takes_everything_and_says_so(segmenter, make_photo):
    result = segmenter(make_photo(50, 75), ["cat"])
    assert (result.labels == 0).all()
    assert any("one class only" in note for note in result.notes)


def test_many_classes(segmenter, make_photo):
    names = [f"thing {i}" for i in range(300)]
    result = segmenter(make_photo(50, 75), names)
    assert result.labels.max() < 300
    assert len(result.reports) == 300


@pytest.mark.parametrize("size", [(2, 2), (2, 300), (300, 2), (9, 7)])
def test_photo_smaller_or_narrower_than_the_grid(segmenter, make_photo, size):
    assert segmenter(make_photo(*size), CLASSES).labels.shape == size


@pytest.mark.parametrize("upsampling", ["bilinear", "dense"])
def test_other_upsampling(segmenter, make_photo, upsampling):
    result = segmenter(make_photo(33, 47), CLASSES, upsampling=upsampling)
    assert result.labels.shape == (33, 47)


@pytest.mark.parametrize(
    "precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
)
def test_half_precision_networks(checkpoint, make_photo, segmenter, precision):
    half = Segmenter.from_pretrained(checkpoint, config=CONFIG, dtype=precision)
    networks = half.networks
    for network in (networks.logits, networks.affinity(half.config.affinity)):
        leaves = jax.tree.leaves(network.state)
        assert leaves
        assert all(leaf.dtype == precision for leaf in leaves)
    photo = make_photo(50, 75)
    result, full = half(photo, CLASSES), segmenter(photo, CLASSES)
    assert result.discrepancy.dtype == np.float32
    # Random features are nearly alike, so that labels flip easily; maps must not.
    both = [
        i
        for i in range(5)
        if not (result.reports[i].rejected or full.reports[i].rejected)
    ]
    assert both


def test_names_are_encoded_once(checkpoint, make_photo):
    announced = []
    segmenter = Segmenter.from_pretrained(
        checkpoint, config=CONFIG, announce=lambda stage, _: announced.append(stage)
    )
    segmenter(make_photo(50, 75), ["cat", "dog"])
    assert "text" in announced
    announced.clear()
    segmenter(make_photo(50, 75), ["dog", "cat"])
    assert "text" not in announced
    assert {"clip", "vae", "unet", "solver", "labels"} <= set(announced)


def test_modes_without_affinity_load_no_diffusion(checkpoint, make_photo):
    segmenter = Segmenter.from_pretrained(
        clip=checkpoint / "clip", attention="nowhere", mode="logits", config=CONFIG
    )
    assert segmenter(make_photo(50, 75), CLASSES).labels.shape == (50, 75)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    save_vit(folder, "dinov2", seed=5)
    return folder


def test_attention_of_a_vision_transformer(checkpoint, dino, make_photo):
    segmenter = Segmenter.from_pretrained(checkpoint, attention=dino, config=CONFIG)
    photos = [make_photo(50, 75), make_photo(50, 75, seed=1)]
    results = segmenter.batch(photos, CLASSES, batch_size=2)
    for photo, result in zip(photos, results, strict=True):
        np.testing.assert_array_equal(result.labels, segmenter(photo, CLASSES).labels)
    result = results[0]
    assert result.labels.shape == (50, 75)
    assert result.discrepancy.shape == (5, 8, 8)
    assert result.config.affinity.layers == (("layers.2", 1.0),)
    stages = [timing.stage for timing in result.timings]
    assert {"vit", "aggregation"} <= set(stages)
    assert not {"vae", "unet"} & set(stages)
    assert all(report.num_steps > 0 for report in result.reports if not report.rejected)


def test_attention_of_the_clip_itself(checkpoint, make_photo):
    config = CONFIG.with_options(affinity_size=128)
    segmenter = Segmenter.from_pretrained(
        checkpoint, attention=checkpoint / "clip", config=config
    )
    assert segmenter(make_photo(50, 75), CLASSES).discrepancy.shape == (5, 8, 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestep": 10}, "O01.*timestep = 10.*leave it at 0"),
        ({"affinity_layers": (("layers.9", 1.0),)}, "O01.*layers.9.*layers.2"),
    ],
)
def test_choices_of_diffusion_are_none_of_a_transformer(
    checkpoint, dino, changes, words
):
    config = CONFIG.with_options(**changes)
    with pytest.raises(OptionError, match=words):
        Segmenter.from_pretrained(checkpoint, attention=dino, config=config)


def test_patches_that_do_not_divide_the_photo(checkpoint, tmp_path):
    save_vit(tmp_path, "dinov2", seed=5, patch_size=14, image_size=42)
    with pytest.raises(OptionError, match=r"affinity_size = 64 .* 14, .*; use 448"):
        Segmenter.from_pretrained(checkpoint, attention=tmp_path, config=CONFIG)


def test_save_writes_what_was_found(segmenter, make_photo, tmp_path):
    result = segmenter(make_photo(50, 75), CLASSES)
    folder = result.save(tmp_path / "deep" / "photo.jpg")
    with Image.open(folder / "labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image), result.labels)
    with np.load(folder / "maps.npz", allow_pickle=False) as maps:
        np.testing.assert_array_equal(maps["sofa"], result.map_of("sofa"))
    summary = json.loads((folder / "segmentation.json").read_text())
    assert summary["schema"] == "dslo.segmentation.v2"
    assert [report["name"] for report in summary["classes"]] == list(result.classes)
    assert SegmenterConfig.of(**_tuples(summary["config"])) == result.config
    assert summary["classes"][1]["synonyms"] == ["sofa", "couch"]
    with Image.open(folder / "overlay.jpg") as image:
        assert image.width >= 75


def test_results_say_which_networks_they_are_from(checkpoint, segmenter, make_photo):
    photo = make_photo(50, 75)
    model = segmenter(photo, CLASSES).model
    assert model.name == str(checkpoint)
    assert model.clip == Checkpoint(str(checkpoint / "clip"))
    assert model.attention == Checkpoint(str(checkpoint / "diffusion"))
    assert (model.precision, model.device) == ("float32", jax.devices()[0].device_kind)
    assert segmenter(photo, CLASSES, mode="logits").model.attention is None
    assert Segmenter(segmenter.networks, CONFIG)(photo, CLASSES).model is None


def _tuples(value):
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def test_map_of_unknown_class(segmenter, make_photo):
    with pytest.raises(KeyError, match="'dog' is not among"):
        segmenter(make_photo(50, 75), CLASSES).map_of("dog")


def test_a_bare_string_is_not_three_classes(segmenter, make_photo):
    with pytest.raises(ClassListError, match="C04"):
        segmenter(make_photo(50, 75), "cat")


def spoil(network):
    network.state = jax.tree.map(lambda leaf: leaf * np.nan, network.state)


def test_non_finite_logits_never_reach_the_labels(checkpoint, make_photo):
    broken = Segmenter.from_pretrained(checkpoint, config=CONFIG)
    spoil(broken.networks.logits)
    with pytest.raises(SolverError, match=r"S01.*'cat' has 64 patches.*float32"):
        broken(make_photo(64, 64), CLASSES)


def test_non_finite_affinity_never_reaches_the_labels(checkpoint, make_photo):
    broken = Segmenter.from_pretrained(checkpoint, config=CONFIG)
    spoil(broken.networks.affinity(broken.config.affinity))
    for mode in ("velocity", "path"):
        with pytest.raises(SolverError, match=r"S03.*NaN or infinite.*float32"):
            broken(make_photo(64, 64), CLASSES, mode=mode)


def test_unknown_pair_lists_the_known_ones():
    with pytest.raises(OptionError, match=r"'sd3' is neither.*sd2\+clip-b16"):
        Segmenter.from_pretrained("sd3")


def test_absent_device_lists_those_there_are(checkpoint):
    with pytest.raises(DeviceError, match=r"D02.*'gpu'.*cpu:0.*dslo-jax\[cuda\]"):
        Segmenter.from_pretrained(checkpoint, device="gpu")


def test_unknown_precision(checkpoint):
    with pytest.raises(OptionError, match=r"float64.*bfloat16"):
        Segmenter.from_pretrained(checkpoint, dtype="float64")


def test_swapped_checkpoints_are_told_apart(checkpoint):
    with pytest.raises(CheckpointError, match="W0"):
        Segmenter.from_pretrained(
            clip=checkpoint / "diffusion", attention=checkpoint / "clip"
        )


def test_unknown_attention_layer_lists_the_valid_ones(checkpoint):
    config = CONFIG.with_options(affinity_layers=(("up9", 1.0),))
    with pytest.raises(OptionError, match=r"up9.*up_blocks\.1\.attentions\.0"):
        Segmenter.from_pretrained(checkpoint, config=config)


def test_weights_are_as_the_checkpoint_holds_them(checkpoint, segmenter):
    weights = open_weights(checkpoint / "clip")
    state = segmenter.networks.logits.state
    np.testing.assert_array_equal(
        state["clip"]["visual_projection"]["kernel"].get_value(),
        weights["visual_projection.weight"].T,
    )
