"""Class lists, templates, tokens, and the features of names."""

import numpy as np
import pytest
from checkpoints.clip import EOS, VOCAB_SIZE, save_tokenizer

from dslo_jax.errors import ClassListError
from dslo_jax.prompts import (
    IMAGENET_TEMPLATES,
    ClassList,
    check_templates,
    embed_names,
    load_tokenizer,
    parse_classes,
    read_class_file,
    split_classes,
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


# ---------------------------------------------------------------- class lists


def test_parse_classes():
    classes = parse_classes([" cat", ["sofa ", "Couch"], "potted  plant"])
    assert classes.synonyms == (("cat",), ("sofa", "Couch"), ("potted  plant",))
    assert len(classes) == 3
    assert classes.titles == ("cat", "sofa", "potted  plant")
    assert classes.names == ("cat", "sofa", "Couch", "potted  plant")
    assert classes.class_of_name == (0, 1, 1, 2)
    assert parse_classes(classes) is classes


def test_split_classes():
    expected = parse_classes(["cat", ("sofa", "couch"), "wall"])
    assert split_classes("cat, sofa|couch, wall") == expected
    refused("C01", "there is no class", split_classes, "  ")
    refused("C01", "class 2 has a blank name", split_classes, "cat, ")
    refused("C01", "class 1 has a blank name", split_classes, "cat|,dog")


@pytest.mark.parametrize("name", ["🐶", "كلب", "<b>cat</b>", "a {} b", "naïve café"])
def test_odd_names_are_kept(name):
    assert parse_classes([name]).names == (name,)


def test_bad_classes():
    refused("C01", "there is no class", parse_classes, [])
    refused("C01", "class 2 has a blank name: ' '", parse_classes, ["cat", " "])
    refused("C01", "class 1 has no name", parse_classes, [[]])
    refused(
        "C02",
        "'Sofa' of class 3 repeats a name of class 1",
        parse_classes,
        [["couch", "sofa "], "cat", "Sofa"],
    )
    refused("C02", "repeats", parse_classes, ["hot dog", "Hot  Dog"])
    refused("C04", r"did you mean \['cat'\]", parse_classes, "cat")
    refused("C04", r"did you mean \['cat', 'dog'\]", parse_classes, "cat, dog")
    for character in ("\0", "\x1b", "\n", "\ud800"):
        refused("C06", "class 1", parse_classes, [f"a{character}b"])


def test_duplicates_can_be_allowed():
    classes = parse_classes([["sky", "bed"], "bed"], allow_duplicates=True)
    assert classes.class_of_name == (0, 0, 1)


def test_read_class_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffsky, wall\r\ncat;kitten\r\nship\r\n\r\n".encode())
    assert read_class_file(path) == ClassList(
        (("sky", "wall"), ("cat", "kitten"), ("ship",))
    )


@pytest.mark.parametrize(
    "content",
    [
        "0, wall\n1, cat; kitten\n2, 5 euro note",
        "id;name\r\n0;wall\r\n1;cat;kitten\r\n2;5 euro note\r\n",
        "Idx\tName\n0\twall\n1\tcat, kitten\n2\t5 euro note\n",
        "0: wall\n1: cat, kitten\n2: 5 euro note",
        "wall\ncat;kitten\n5 euro note",  # a name may start with a number
    ],
)
def test_ids_in_a_class_file_are_not_names(tmp_path, content):
    path = tmp_path / "classes.txt"
    path.write_text(content)
    expected = ClassList((("wall",), ("cat", "kitten"), ("5 euro note",)))
    assert read_class_file(path) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0, wall\n2, cat", "line 2, has id 2, expected 1: ids count up from 0"),
        ("1, wall\n2, cat", "line 1, has id 1, expected 0"),
        ("id,name\n0,wall\n0,cat", "line 3, has id 0, expected 1"),
        ("0, wall\ncat", "line 2, has no id, expected 1"),
        ("0, wall\n\n1, cat", "line 2, has no id, expected 1"),
        ("Name\nwall\ncat", "line 1, 'Name' is a header; remove it"),
    ],
)
def test_ids_that_are_not_the_labels_are_refused(tmp_path, content, said):
    path = tmp_path / "classes.txt"
    path.write_text(content)
    refused("C08", said, read_class_file, path)


def test_lines_are_counted_from_the_header_on(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("id,name\n0,wall\n1,Wall")
    refused("C02", "line 3 repeats a name of .*line 2", read_class_file, path)


def test_more_classes_than_a_label_map_holds():
    names = [f"thing {number}" for number in range(65537)]
    assert len(parse_classes(names[:-1])) == 65536
    refused("C09", "there are 65537 classes.*holds 65536", parse_classes, names)


def test_bad_class_files(tmp_path):
    path = tmp_path / "classes.txt"
    refused("C07", "cannot be read", read_class_file, path)
    refused("C07", "cannot be read", read_class_file, tmp_path)
    for content, code, message in (
        (b"", "C01", "there is no class"),
        (b"cat\n\ndog", "C01", "classes.txt, line 2 has a blank name"),
        (b"cat\ndog, ", "C01", "line 2 has a blank name"),
        (b"cat\ndog\nCAT", "C02", "line 3 repeats a name of .*line 1"),
        (b"cat\nd\0g", "C06", "line 2"),
        (b"cat\n\xff\xfe", "C07", "line 2, is not UTF-8"),
    ):
        path.write_bytes(content)
        refused(code, message, read_class_file, path)


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
    assert encoder.shapes == [(8, 8)]
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
