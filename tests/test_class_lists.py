"""Class lists from Python and from the command line."""

import collections
import re

import numpy as np
import pytest

from dslo_jax import segment_logits
from dslo_jax.errors import ClassListError, DsloError
from dslo_jax.evaluation.datasets import BENCHMARKS
from dslo_jax.prompts import (
    BACKGROUNDS,
    classes_of_options,
    parse_classes,
    split_classes,
    with_background,
)


def refused(code, message, function, *arguments, **options):
    with pytest.raises(ClassListError, match=message) as error:
        function(*arguments, **options)
    assert error.value.code == code


# ---------------------------------------------------------------- in Python


def test_parse_classes():
    classes = parse_classes([" cat", ["sofa ", "Couch"], "potted  plant"])
    assert classes.synonyms == (("cat",), ("sofa", "Couch"), ("potted  plant",))
    assert len(classes) == 3
    assert classes.titles == ("cat", "sofa", "potted  plant")
    assert classes.names == ("cat", "sofa", "Couch", "potted  plant")
    assert classes.class_of_name == (0, 1, 1, 2)
    assert parse_classes(classes) is classes


@pytest.mark.parametrize(
    "name",
    ["🐶", "كلب", "<b>cat</b>", "a {} b", "naïve café", '"', "a, b", "#1", "5", "0: x"],
)
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
    refused("C02", "repeats", parse_classes, ["caf\u00e9", "cafe\u0301"])
    refused("C04", r"did you mean \['cat'\]", parse_classes, "cat")
    refused("C04", r"did you mean \['cat', 'dog'\]", parse_classes, "cat, dog")
    for character in ("\0", "\x1b", "\n", "\ud800", "\ufeff"):
        refused("C06", "class 1", parse_classes, [f"a{character}b"])


def test_duplicates_can_be_allowed():
    classes = parse_classes([["sky", "bed"], "bed"], allow_duplicates=True)
    assert classes.class_of_name == (0, 0, 1)


def test_more_classes_than_a_label_map_holds():
    names = [f"thing {number}" for number in range(65537)]
    assert len(parse_classes(names[:-1])) == 65536
    refused("C09", "there are 65537 classes.*holds 65536", parse_classes, names)


LABELS = {"sky": 0, "sea": 1}


@pytest.mark.parametrize(
    "classes",
    [
        {"sky", "sea"},
        frozenset(["sky", "sea"]),
        LABELS.keys() | {"house"},
        LABELS,
        LABELS.items(),
        collections.Counter(["sky", "sea"]),
        ["house", {"sky", "sea"}],
        ["house", LABELS],
        b"sky, sea",
        5,
        None,
        ["sky", 5],
        ["sky", None],
        [["sky", 5]],
        [["sky", ["sea"]]],
        np.array("sky"),
    ],
    ids=lambda classes: type(classes).__name__,  # the order of a set is random
)
def test_what_has_no_order_or_is_no_list_is_refused(classes):
    refused("C04", "`classes`|class [12]", parse_classes, classes)


@pytest.mark.parametrize(
    "classes",
    [
        ("sky", "sea"),
        LABELS.keys(),
        dict(enumerate(["sky", "sea"])).values(),
        collections.OrderedDict(LABELS).keys(),
        iter(["sky", "sea"]),
        (name for name in LABELS),
        np.array(["sky", "sea"]),
        collections.deque(["sky", "sea"]),
        [("sky",), iter(["sea"])],
    ],
    ids=lambda classes: type(classes).__name__,
)
def test_whatever_has_an_order_is_a_list(classes):
    found = parse_classes(classes)
    assert found.synonyms == (("sky",), ("sea",))
    assert all(type(name) is str for name in found.names)


def test_names_of_given_logits_are_checked():
    logits = np.random.default_rng(0).random((2, 4, 4), np.float32)
    photo = np.zeros((8, 8, 3), np.uint8)
    options = {"classes": ["sky", " "], "mode": "logits"}
    refused("C01", "class 2", segment_logits, logits, None, photo, **options)


# ---------------------------------------------------------------- on a command line


def test_split_classes():
    expected = parse_classes(["cat", ("sofa", "couch"), "wall"])
    assert split_classes("cat, sofa|couch, wall") == expected
    assert split_classes('["cat", ["sofa", "couch"], "wall"]') == expected
    assert (
        split_classes(' {"0": "cat", "2": "wall", "1": ["sofa", "couch"]}') == expected
    )
    refused("C01", "there is no class", split_classes, "  ")
    refused("C01", "class 2 has a blank name", split_classes, "cat, ")
    refused("C01", "class 1 has a blank name", split_classes, "cat|,dog")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"table, wooden", cat', ["table, wooden", "cat"]),
        ('cat,"a|b" , c', ["cat", "a|b", "c"]),
        ('"say ""hi""", x', ['say "hi"', "x"]),
        ('"5", "16:9", "#1", "[x]", "a;b"', ["5", "16:9", "#1", "[x]", "a;b"]),
        ("C#, bird's nest, 5 euro note, 3D-printer", None),
        ("cat,\n dog", ["cat", "dog"]),
        ('" cat "', ["cat"]),
        ('"0 wall", "1 cat"', ["0 wall", "1 cat"]),
        ("1 euro coin", ["1 euro coin"]),
    ],
)
def test_quotes_are_those_of_csv(text, names):
    assert list(split_classes(text).titles) == (names or text.split(", "))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"table, wooden', '"table.* does not close'),
        ('"table" wooden, cat', "text after the closing quote"),
        ('5" disc', 'double quote inside.*write "5"" disc"'),
        ("“table, wooden”", "do not count as quotes"),
        ("'cat', 'dog'", "do not count as quotes"),
        ("cat # mine", "seems to hold a comment"),
        ("#cat, dog", "seems to hold a comment"),
        ("cat, dog]", "JSON or markup"),
        ('["cat", "dog"', "line 1, column 14, is no JSON"),
        ("['cat', 'dog']", "line 1, column 2, is no JSON"),
        ('["cat", 5]', "class 2 is 5; expected a list such as"),
        ("0: wall, 1: cat", "holds a colon"),
        ("0, wall", "'0' is a number"),
        ("0 wall, 1 cat", "number before every name"),
        ("cat; dog", "has a semicolon"),
        ("cat\tdog", "has a tab"),
        ("- cat", "mark of a list"),
        ("1. cat", "mark of a list"),
        ("n02123045 tabby", "WordNet"),
        ("names.txt", "--class-file"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text, said):
    refused("C10", said, split_classes, text)


def test_all_values_of_an_option_make_the_list():
    values = ["cat, sofa|couch", '"table, wooden"', '["wall"]']
    expected = parse_classes(["cat", ("sofa", "couch"), "table, wooden", "wall"])
    assert classes_of_options(values) == expected
    assert classes_of_options(["cat, dog"]) == split_classes("cat, dog")
    assert classes_of_options("cat, dog") == split_classes("cat, dog")
    assert len(classes_of_options(["cat", "cat"], allow_duplicates=True)) == 2


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        ([], "C01", "there is no class"),
        (["cat", " "], "C01", "there is no class of --classes number 2"),
        (["cat", "dog, "], "C01", "class 2 of --classes number 2 has a blank name"),
        (
            ["sky, cat", "wall, Cat"],
            "C02",
            "'Cat' of class 2 of --classes number 2 repeats a name of class 2 of "
            "--classes number 1",
        ),
        (["cat", "0: dog"], "C10", "class list of --classes number 2: '0: dog'"),
        (["cat", '["dog", 5]'], "C10", "--classes number 2, class 2 is 5"),
    ],
)
def test_errors_of_repeated_options_say_which(values, code, said):
    refused(code, re.escape(said), classes_of_options, values)


def test_a_background_is_known_by_its_name():
    assert parse_classes(["cat", "wall"]).background is None
    found = parse_classes(["cat", ("wall", " Background")])
    assert found.background == 1
    assert found.titles == ("cat", "wall")


def test_published_words_make_a_background_after_all_classes():
    found = with_background(["cat", ("WALL", "fence"), "sky"], "sclip")
    assert found.background == 3
    assert found.titles == ("cat", "WALL", "sky", "background")
    words = found.synonyms[3]
    assert len(words) == 23
    assert not {"wall", "fence", "sky", "background"} & set(words)
    assert found.names[-1] == "rail"
    assert found.notes == ()
    near = with_background(["cat", ("pine", "Trees"), "sand", "grass"], "sclip")
    assert [note.split("; ")[0] for note in near.notes] == [
        "the background has the word 'tree', which may take pixels from 'Trees'",
        "the background has the word 'sands', which may take pixels from 'sand'",
    ]
    single = with_background(["cat"], "clearclip")
    assert single == parse_classes(["cat", "background"])


def test_published_words_are_as_many_as_published():
    counts = {name: len(words) for name, words in BACKGROUNDS.items()}
    assert counts == {"sclip": 26, "proxyclip-coco": 17, "clearclip": 1}
    assert set(BACKGROUNDS["proxyclip-coco"]) < set(BACKGROUNDS["sclip"])
    assert BENCHMARKS["voc21"].classes.synonyms[0] == BACKGROUNDS["sclip"]


@pytest.mark.parametrize(
    ("classes", "words", "code", "said"),
    [
        (["background", "cat"], "sclip", "C02", "class 1 is 'background' already"),
        (["cat"], "naclip", "O03", "'sclip', 'proxyclip-coco', 'clearclip'"),
        (list(BACKGROUNDS["sclip"]), "proxyclip-coco", "C01", "names of other"),
    ],
)
def test_a_background_that_cannot_be_added(classes, words, code, said):
    with pytest.raises(DsloError, match=re.escape(said)) as info:
        with_background(classes, words)
    assert info.value.code == code
