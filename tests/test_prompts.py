"""Templates, and the features of names."""

import numpy as np
import pytest
from checkpoints.clip import EOS, VOCAB_SIZE, save_tokenizer

from dslo_jax.errors import ClassListError
from dslo_jax.prompts import (
    IMAGENET_TEMPLATES,
    check_templates,
    embed_names,
    load_tokenizer,
    tokenize,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return load_tokenizer(folder)


def refused(code, message, function, *arguments, **options):
    with pytest.raises(ClassListError, match=message) as error:
        function(*arguments, **options)
    assert error.value.code == code


# ---------------------------------------------------------------- templates


def test_imagenet_templates():
    assert len(set(IMAGENET_TEMPLATES)) == len(IMAGENET_TEMPLATES) == 80
    assert IMAGENET_TEMPLATES[0] == "a bad photo of a {}."
    assert IMAGENET_TEMPLATES[40] == "the origami {}."
    assert IMAGENET_TEMPLATES[-1] == "a tattoo of the {}."
    assert check_templates(IMAGENET_TEMPLATES) == IMAGENET_TEMPLATES


def test_bad_templates():
    for template in ("a photo", "{} {}", "{name}", "{0}", "{!r}", "{:>9}", "{", "{}}"):
        refused("C05", "must hold", check_templates, ["{}", template])
    refused("C05", r"did you mean \['a \{\}'\]", check_templates, "a {}")
    refused("C05", "there is no template", check_templates, [])


# ---------------------------------------------------------------- features


class Encoder:
    """A text network of one random feature per sequence, up to its end of text."""

    def __init__(self):
        self.shapes = []
        self.table = np.random.default_rng(0).normal(size=(VOCAB_SIZE, 6))

    def __call__(self, ids):
        self.shapes.append(ids.shape)
        rows = np.asarray(ids)
        features = []
        for row in rows:
            end = row.tolist().index(EOS)
            weights = np.arange(1, end + 1)[:, None] ** 0.5
            features.append((self.table[row[:end]] * weights).sum(0))
        return np.asarray(features, np.float32)


def test_embed_names(tokenizer):
    """The definition, one prompt at a time, in float64."""
    names = ["cat", "the dog", "wall"]
    templates = ["a {}.", "photo of the {} and more", "{}"]
    encoder = Encoder()
    found = embed_names(encoder, tokenizer, names, templates)
    expected = []
    for name in names:
        mean = np.zeros(6)
        for template in templates:
            ids = tokenize(tokenizer, [template.format(name)])
            feature = encoder(ids)[0].astype(np.float64)
            mean += feature / np.linalg.norm(feature)
        expected.append(mean / np.linalg.norm(mean))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_few_shapes_are_encoded(tokenizer):
    encoder = Encoder()
    embed_names(encoder, tokenizer, ["cat", "dog", "wall"], ["a {}", "the {}"])
    assert encoder.shapes == [(8, 16)]
    encoder.shapes.clear()
    found = embed_names(encoder, tokenizer, ["cat", "dog"])
    assert len(encoder.shapes) == 2
    assert encoder.shapes[0] == encoder.shapes[1]
    assert encoder.shapes[0][0] == 80
    assert encoder.shapes[0][1] % 8 == 0
    alone = embed_names(encoder, tokenizer, ["dog"])
    np.testing.assert_allclose(alone, found[1:], atol=1e-6)


def test_embed_names_refuses(tokenizer):
    refused("C05", "exactly once", embed_names, Encoder(), tokenizer, ["cat"], ["a"])
    long = ["c" * 9]
    refused("C03", "reads 8", embed_names, Encoder(), tokenizer, long, length=8)
