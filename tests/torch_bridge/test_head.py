"""``DSLOHead``: tensors of PyTorch give the labels of the package, or an error."""

import dataclasses
import doctest

import numpy as np
import pytest
import torch
from PIL import Image

from dslo_jax import Segmenter, SegmenterConfig, images, prompts, segment_logits
from dslo_jax.errors import ImageError, OptionError, SolverError
from dslo_jax.pipeline import Batch
from dslo_jax.pipeline.stages import Stage
from dslo_jax.solvers import Discrepancy
from torch_bridge import BridgeError, DSLOHead, head as head_module


CONFIG = SegmenterConfig.of(affinity_size=64, short_side=64, templates="single")
CLASSES = ("cat", "sofa", "wall")


@pytest.fixture(scope="module")
def labels():
    """The labels that ``segment_logits`` gives for tensors."""

    def compute(logits, attention, image, **options):
        photos = [each.permute(1, 2, 0).numpy() for each in image]
        affinity = attention if attention is None else attention.numpy()
        found = segment_logits(logits.numpy(), affinity, photos, **options)
        return torch.from_numpy(np.stack([each.labels for each in found])).long()

    return compute


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    """A segmenter whose attention is that of its CLIP, with a class token."""
    attention = checkpoint / "clip"
    return Segmenter.from_pretrained(checkpoint, attention=attention, config=CONFIG)


# The modes differ only in the solvers.
@pytest.mark.parametrize(
    "mode",
    [
        "velocity",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("path", "logits")),
    ],
)
def test_the_three_ways_give_the_same_labels(segmenter, mode):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 48, 64, 3), np.uint8)
    expected = segmenter.batch(list(pixels), CLASSES, batch_size=2, mode=mode)

    config = segmenter.config.with_options(mode=mode)
    photos = [images.read_photo(each) for each in pixels]
    batch = Batch(segmenter.networks, photos, prompts.parse_classes(CLASSES), size=2)
    grid = batch.grid(config)
    logits = np.array(batch.logits(config)).reshape(2, len(CLASSES), *grid)
    with_affinity = config.with_options(mode="velocity")
    affinity = np.array(batch.affinity(with_affinity))
    by_arrays = segment_logits(logits, affinity, photos, config=config)

    head = DSLOHead(config=config, classes=CLASSES, prefix_tokens=1)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    tensors = torch.from_numpy(logits), torch.from_numpy(affinity)
    by_tensors = head(*tensors, image)
    (encoded,) = batch.encoded(with_affinity)  # queries of patches, keys of all tokens
    key = torch.from_numpy(np.array(encoded.key)).transpose(1, 2)
    query = torch.from_numpy(np.array(encoded.query)).transpose(1, 2)
    query = torch.cat([torch.full_like(query[:, :, :1], torch.nan), query], dim=2)
    by_heads = head(tensors[0], (query, key), image)

    for index, one in enumerate(expected):
        np.testing.assert_array_equal(by_arrays[index].labels, one.labels)
        for found in (by_tensors, by_heads):
            np.testing.assert_array_equal(found.labels[index].numpy(), one.labels)
            np.testing.assert_allclose(
                found.discrepancy[index].numpy(), one.discrepancy, rtol=1e-5
            )
        assert by_tensors.segmentations[index].classes == one.classes


def test_results_are_tensors_of_torch(logits, attention, image):
    found = DSLOHead()(logits, attention, image)
    assert found.labels.shape == (2, 30, 45)
    assert found.labels.dtype is torch.int64
    assert found.discrepancy.shape == logits.shape
    assert found.discrepancy.dtype is torch.float32
    assert found.labels.device == found.discrepancy.device == logits.device
    assert found.one_hot().dtype is torch.float32
    assert torch.equal(found.one_hot().argmax(dim=1), found.labels)
    assert (found.one_hot().sum(dim=1) == 1).all()
    report = found.segmentations[1].reports[0]
    assert report.area == pytest.approx((found.labels[1] == 0).float().mean().item())


def test_options_have_their_flat_names(logits, attention, image, labels):
    head = DSLOHead(mode="path", epsilon=0.05)
    expected = SegmenterConfig.of(mode="path", epsilon=0.05)
    assert head.config.discrepancy == expected.discrepancy
    found = head(logits, attention, image, mode="velocity", threshold=0.1).labels
    assert torch.equal(found, labels(logits, attention, image, threshold=0.1))
    with pytest.raises(OptionError, match=r"O02.*'epsilonn'.*'epsilon'"):
        DSLOHead(epsilonn=0.1)
    with pytest.raises(OptionError, match=r"O02.*'treshold'"):
        head(logits, attention, image, treshold=0.1)


def test_the_example_runs():
    assert doctest.testmod(head_module) == (0, 3)


@pytest.mark.slow
def test_a_compiled_model_leaves_the_head_out(logits, attention, image):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.compiler.disable(DSLOHead(mode="logits"))

        def forward(self, logits, attention, image):
            return self.head(logits.sigmoid(), attention, image).labels + 1

    model = Model()
    compiled = torch.compile(model, backend="eager")
    expected = model(logits, attention, image)
    assert torch.equal(compiled(logits, attention, image), expected)


# --- Tensors as they come


def strided(tensor):
    """The same values with a gap after each."""
    return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]


def turned(tensor):
    """The same values in the order of another layout."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


FORMS = {
    "requires_grad": lambda t: t.clone().requires_grad_(),
    "channels_last or transposed": turned,
    "strided": strided,
    "expanded": lambda t: t[:1].expand(len(t), *t.shape[1:]),
    "offset": lambda t: torch.cat([t[:1], t])[1:],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_layout_of_tensors_changes_nothing(form, logits, attention, image, labels):
    given = form(logits), form(attention)
    found = DSLOHead()(*given, image)
    plain = [tensor.detach().clone() for tensor in given]
    assert torch.equal(found.labels, labels(*plain, image))
    assert not found.discrepancy.requires_grad


def test_what_is_done_to_tensors_is_noted(logits, attention, image):
    found = DSLOHead()(logits.requires_grad_(), turned(attention), image)
    notes = found.segmentations[0].notes
    assert "logits detached from their gradient" in notes
    assert "attention copied once more to be contiguous" in notes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_taken_as_it_is(dtype, logits, attention, image, labels):
    given = logits.to(dtype), attention.to(dtype)
    found = DSLOHead()(*given, image).labels
    expected = labels(*(tensor.float() for tensor in given), image)
    assert (found == expected).float().mean() > 0.99


def test_double_precision_is_refused_with_the_name_of_the_tensor(
    logits, attention, image
):
    with pytest.raises(BridgeError, match=r"B02.*`logits`.*float64.*\.float\(\) first"):
        DSLOHead()(logits.double(), attention, image)
    with pytest.raises(BridgeError, match=r"B02.*`attention`.*float64"):
        DSLOHead()(logits, attention.double(), image)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_tensors_of_inference_mode_are_taken(mode, logits, attention, image, labels):
    expected = labels(logits, attention, image)
    with mode():
        made = logits * 1, attention * 1
        assert torch.equal(DSLOHead()(*made, image).labels, expected)
    assert torch.equal(DSLOHead()(*made, image).labels, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to("meta"), "B01.*`logits`.*meta device"),
        (lambda t: t.to_sparse(), r"B01.*`logits`.*to_dense"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_without_memory_are_refused(change, words, logits, image):
    with pytest.raises(BridgeError, match=words):
        DSLOHead(mode="logits")(change(logits), None, image)


def test_a_device_that_does_not_fit_is_named(logits, attention, image, monkeypatch):
    class Elsewhere(torch.Tensor):
        device = torch.device("cuda", 1)

    monkeypatch.setattr(Elsewhere, "detach", lambda self: self)
    monkeypatch.setattr(Elsewhere, "cpu", lambda self: self.as_subclass(torch.Tensor))
    with pytest.raises(BridgeError, match=r"B03.*`attention` is on cuda:1.*on cpu"):
        DSLOHead()(logits, attention.as_subclass(Elsewhere), image)
    moved = logits.as_subclass(Elsewhere)
    with pytest.raises(
        BridgeError, match=r"B03.*`logits`.*cuda:1.*CpuDevice.*allow_host_copy"
    ):
        DSLOHead(mode="logits")(moved, None, image)


# --- Ownership


def test_a_tensor_that_changes_after_it_was_handed_over_changes_nothing(
    logits, attention, image, labels
):
    expected = labels(logits, attention, image)
    found = DSLOHead()(logits, attention, image)
    for tensor in (logits, attention, image, found.segmentations[0].labels):
        tensor[...] = 0
    assert torch.equal(found.labels, expected)
    before = found.segmentations[0].discrepancy.copy()
    found.discrepancy.zero_()
    np.testing.assert_array_equal(found.segmentations[0].discrepancy, before)


def test_zero_copy_reads_the_attention_where_it_is(
    logits, attention, image, labels, monkeypatch
):
    seen = set()
    run = Stage.__call__

    def spy(stage, clock, *args, **static):
        for arg in args:
            if getattr(arg, "shape", None) == attention.shape:
                seen.add(arg.unsafe_buffer_pointer())
        return run(stage, clock, *args, **static)

    monkeypatch.setattr(Stage, "__call__", spy)
    found = DSLOHead(zero_copy=True)(logits, attention, image)
    assert seen == {attention.data_ptr()}
    assert torch.equal(found.labels, labels(logits, attention, image))
    seen.clear()
    DSLOHead()(logits, attention, image)
    assert len(seen) == 1
    assert attention.data_ptr() not in seen
    with pytest.raises(BridgeError, match=r"B05.*`attention`.*make it contiguous"):
        DSLOHead(zero_copy=True)(logits, turned(attention), image)


# --- Shapes


def test_shapes_that_do_not_fit_are_shown_with_the_remedy(logits, attention, image):
    head = DSLOHead()
    more = torch.zeros(2, 25, 25)
    query = torch.zeros(2, 2, 25, 8)
    for arguments, words in (
        (
            (logits[0], attention, image),
            r"float32 of shape \(3, 4, 6\).*\[None\]",
        ),
        ((logits.long(), attention, image), r"torch.int64 of shape .*expected floats"),
        ((logits.numpy(), attention, image), "`logits` is ndarray"),
        ((logits, None, image), "`attention` is None, but mode 'velocity'.*watch"),
        ((logits, attention[:1], image), r"\(1, 24, 24\), expected .*\(2, 24, 24\)"),
        ((logits, more, image), r"\(2, 25, 25\).*attention\[:, 1:, 1:\]"),
        ((logits, torch.zeros(2, 9, 9), image), r"\(2, 9, 9\).*interpolate"),
        ((logits, torch.zeros(2, 8, 24, 24), image), r"mean\(dim=1\)"),
        ((logits, attention > 0, image), "torch.bool of shape"),
        ((logits.permute(0, 2, 3, 1), attention, image), r"expected .*\(2, 18, 18\)"),
        ((logits, (query, query), image), r"\(2, 2, 25, 8\).*prefix_tokens=1"),
        ((logits, (query, query[:, :1]), image), "expected floats of shape"),
        ((logits, (query,), image), "tuple of two tensors"),
        ((logits, attention.numpy(), image), "`attention` is ndarray"),
        ((logits, attention, image[:1]), "`image` has 1 photos.*logits have 2"),
        ((logits, attention, image[0]), r"`image` is .*\(3, 30, 45\), expected"),
        ((logits, attention, image.movedim(1, 3)), r"\(30, 45, 3\).*channels come"),
        ((logits, attention, image.long()), "`image` is torch.int64"),
        ((logits, attention, "cat.jpg"), "`image` is str.*list of photos"),
    ):
        with pytest.raises(BridgeError, match=f"B04.*{words}"):
            head(*arguments)
    with pytest.raises(ValueError, match="`classes` has 1 names, the logits 3 rows"):
        DSLOHead(classes=["cat"])(logits, attention, image)


def test_values_that_no_solver_can_use_are_named(logits, attention, image):
    logits[1, 2, 3, 3] = torch.nan
    with pytest.raises(SolverError, match=r"S01.*'wall' has 1 patches"):
        DSLOHead(classes=CLASSES)(logits, attention, image)
    with pytest.raises(SolverError, match=r"S03.*negative value"):
        DSLOHead()(logits.nan_to_num(), -attention, image)


def test_a_mistake_in_a_discrepancy_of_ones_own_is_named(logits, attention, image):
    @dataclasses.dataclass(frozen=True)
    class Mine(Discrepancy):
        name = "mine"

        def solve(self, source, affinity=None):
            return source @ affinity

    with pytest.raises(OptionError, match=r"O10.*Mine\.solve returned an array"):
        DSLOHead(discrepancy=Mine())(logits, attention, image)
    with pytest.raises(OptionError, match=r"O03.*Mine is a class"):
        DSLOHead(discrepancy=Mine)


# --- Images


def test_images_in_all_forms_are_the_same_photo(logits, attention, image, tmp_path):
    expected = DSLOHead()(logits, attention, image).labels
    arrays = [each.permute(1, 2, 0).numpy() for each in image]
    Image.fromarray(arrays[0]).save(tmp_path / "photo.png")
    backwards = np.ascontiguousarray(arrays[1][:, :, ::-1])[:, :, ::-1]  # from BGR
    assert backwards.strides[2] < 0
    for form in (
        image / 255,
        (image / 255).half(),
        (image / 255).requires_grad_(),
        image.to(memory_format=torch.channels_last),
        [image[0], image[1] / 255],
        [tmp_path / "photo.png", backwards],
        (Image.fromarray(arrays[0]), arrays[1]),
    ):
        found = DSLOHead()(logits, attention, form).labels
        assert torch.equal(torch.stack(list(found)), expected)


def test_photos_of_different_sizes_are_a_list(logits, attention, image, labels):
    found = DSLOHead()(logits, attention, [image[0], image[1, :, :20, :17]])
    assert [tuple(each.shape) for each in found.labels] == [(30, 45), (20, 17)]
    assert torch.equal(found.labels[0], labels(logits, attention, image)[0])
    with pytest.raises(BridgeError, match=r"B04.*\(20, 17\), \(30, 45\)"):
        found.one_hot()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: (x - 0.45) / 0.27,
            r"from -1\.\d+ to .*normalised.*std \+ mean",
        ),
        (lambda x: x * 255, r"to 255, expected floats in \[0, 1\]; divide it by 255"),
        (lambda x: x * torch.nan, "NaN or infinity"),
    ],
    ids=["normalised", "bytes", "nan"],
)
def test_images_out_of_range_are_refused(change, words, logits, attention, image):
    with pytest.raises(ImageError, match=f"I06.*`image`.*{words}"):
        DSLOHead()(logits, attention, change(image / 255))
