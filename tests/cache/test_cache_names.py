"""Features of names on disk: the same bits, and never those of another network."""

import hashlib
import io
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dslo_jax import Segmenter, SegmenterConfig
from dslo_jax.cache import names
from dslo_jax.pipeline.stages import Clock, listen
from dslo_jax.tokens import LazyTokenizer


CONFIG = SegmenterConfig.of(mode="logits", short_side=64)
NAMES = ["cat", "a very long name of a sofa with many words in it"]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DSLO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def own(checkpoint, tmp_path):
    """A copy of the checkpoint, to change."""
    return shutil.copytree(checkpoint, tmp_path / "own")


def features(checkpoint, names=NAMES, templates="single"):
    """Features in a new segmenter, and how often its text network ran."""
    networks = Segmenter.from_pretrained(checkpoint, config=CONFIG).networks
    ran = []
    with listen(lambda stage, compiles: ran.append(stage)):
        found = np.asarray(networks.embed(Clock(), names, templates))
    return found, ran.count("text")


def test_features_from_disk_are_the_same_bits(checkpoint):
    fresh, ran = features(checkpoint)
    again, ran_again = features(checkpoint)
    assert (ran, ran_again) == (2, 0)
    assert fresh.tobytes() == again.tobytes()
    assert fresh.dtype == np.float32


def test_features_depend_on_no_other_name(checkpoint, monkeypatch):
    monkeypatch.setenv("DSLO_CACHE", "")
    together, _ = features(checkpoint)
    for row, name in enumerate(NAMES):
        alone, _ = features(checkpoint, [name])
        assert together[row].tobytes() == alone[0].tobytes()


def test_the_tokenizer_is_not_loaded_where_nothing_is_new(checkpoint):
    features(checkpoint)
    tokenizer = Segmenter.from_pretrained(checkpoint, config=CONFIG).networks.tokenizer
    assert isinstance(tokenizer, LazyTokenizer)
    assert "_loaded" not in vars(tokenizer)
    assert features(checkpoint, ["dog"])[1] == 1  # and is where a name is new


def test_templates_have_features_of_their_own(checkpoint):
    features(checkpoint)
    assert features(checkpoint, templates=("a {}.",))[1] == 2


def test_a_file_of_weights_that_was_replaced_in_place(own):
    before, _ = features(own)
    (path,) = (own / "clip").glob("*.safetensors")
    status = path.stat()
    tensors = load_file(path)
    tensors["text_projection.weight"] = -tensors["text_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after, ran = features(own)
    assert ran == 2
    np.testing.assert_allclose(after, -before, atol=1e-6)


def test_a_constant_of_the_network_that_changed(own):
    features(own)
    path = own / "clip" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["hidden_act"] = (
        "gelu" if config["text_config"].get("hidden_act") != "gelu" else "quick_gelu"
    )
    path.write_text(json.dumps(config))
    assert features(own)[1] == 2


def test_a_tokenizer_that_changed(own):
    features(own)
    path = own / "clip" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "comment": "new"}))
    assert features(own)[1] == 2


def not_finite():
    content = io.BytesIO()
    np.save(content, np.full(8, np.nan, np.float32))
    return content.getvalue()


@pytest.mark.parametrize("checked", [False, True], ids=["raw", "with checksum"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", not_finite()], ids=["empty", "garbage", "not finite"]
)
def test_a_damaged_file_is_computed_again_and_replaced(
    checkpoint, root, caplog, content, checked
):
    fresh, _ = features(checkpoint)
    paths = list((root / "names").rglob("*.npy"))
    assert len(paths) == 2
    for path in paths:
        checksum = hashlib.sha256(content).digest() if checked else b""
        path.write_bytes(checksum + content)
    again, ran = features(checkpoint)
    assert ran == 2
    assert fresh.tobytes() == again.tobytes()
    assert caplog.text.count("made again") == 2
    assert features(checkpoint)[1] == 0


def test_the_code_that_makes_features_is_found():
    for pattern in names._SOURCES:
        assert list(names._PACKAGE.glob(pattern)), pattern
