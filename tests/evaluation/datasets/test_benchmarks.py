import pytest

from dslo_jax import errors
from dslo_jax.evaluation.datasets import BENCHMARKS, find_benchmark
from dslo_jax.evaluation.datasets.context import _CATEGORIES
from dslo_jax.prompts import parse_classes
from dslo_jax.templates import IMAGENET_TEMPLATES


COUNTS = {  # classes, names, photos of the published split, short side
    "voc21": (21, 56, 1449, 336),
    "context60": (60, 60, 5105, 336),
    "coco_object": (81, 113, 5000, 336),
    "voc20": (20, 30, 1449, 336),
    "context59": (59, 59, 5105, 336),
    "coco_stuff": (171, 171, 5000, 336),
    "cityscapes": (19, 19, 500, 560),
    "ade20k": (150, 150, 2000, 336),
    "loveda": (7, 9, 1669, 448),
}
PERSON = (
    *("person", "person in shirt", "person in jeans", "person in dress"),
    *("person in sweater", "person in skirt", "person in jacket"),
)


def names_of(benchmark, title):
    classes = BENCHMARKS[benchmark].classes
    return classes.synonyms[classes.titles.index(title)]


def test_counts():
    assert list(BENCHMARKS) == list(COUNTS)
    for name, row in BENCHMARKS.items():
        found = (
            len(row.classes),
            len(row.classes.names),
            row.layout.num_photos,
            row.short_side,
        )
        assert found == COUNTS[name], name
    assert len(IMAGENET_TEMPLATES) == 80


@pytest.mark.parametrize("name", COUNTS)
def test_names_pass_the_checks_of_any_class_list(name):
    classes = BENCHMARKS[name].classes
    repeats = name == "coco_object"  # "bed" is background and thing
    found = parse_classes(classes.synonyms, allow_duplicates=repeats)
    assert found.synonyms == classes.synonyms
    if repeats:
        with pytest.raises(errors.ClassListError, match=r"C02.*bed"):
            parse_classes(classes.synonyms)


def test_spelling_of_the_field():
    for name in ("voc21", "voc20"):
        titles = BENCHMARKS[name].classes.titles
        assert {"ship", "table", "pottedplant", "motorbike"} <= set(titles)
        assert not {"boat", "diningtable"} & set(titles)
        assert names_of(name, "person") == PERSON
        assert len(names_of(name, "television monitor")) == 5
    assert names_of("coco_object", "person") == (*PERSON, "body")
    assert {"traffic light", "hair drier"} <= set(
        BENCHMARKS["coco_object"].classes.names
    )
    assert {"trafficlight", "hairdrier"} <= set(BENCHMARKS["coco_stuff"].classes.names)
    assert {"trafficlight", "trafficsign"} <= set(
        BENCHMARKS["cityscapes"].classes.names
    )
    assert {"chestofdrawers", "crtscreen"} <= set(BENCHMARKS["ade20k"].classes.names)


def test_backgrounds_are_class_0_and_told_by_names():
    with_background = [name for name, row in BENCHMARKS.items() if row.background]
    assert with_background == ["voc21", "context60", "coco_object", "loveda"]
    words = BENCHMARKS["voc21"].classes.synonyms[0]
    assert len(words) == 26
    assert (words[0], words[-1]) == ("sky", "fence")
    assert BENCHMARKS["coco_object"].classes.synonyms[0] == words
    for name in ("context60", "loveda"):
        assert BENCHMARKS[name].classes.synonyms[0] == ("background",)


def test_other_words_for_the_background():
    usual = BENCHMARKS["coco_object"].classes
    other = BENCHMARKS["coco_object"].classes_with("clearclip")
    assert usual.background == other.background == 0
    assert other.synonyms == (("background",), *usual.synonyms[1:])
    assert other.titles == usual.titles
    assert usual.titles[0] == "background"
    assert BENCHMARKS["voc20"].classes_with("clearclip") == BENCHMARKS["voc20"].classes
    assert BENCHMARKS["voc20"].classes.background is None


def test_lists_without_background_are_the_rest_of_those_with():
    for full, less in (("voc21", "voc20"), ("context60", "context59")):
        every = BENCHMARKS[full].classes.synonyms
        assert BENCHMARKS[less].classes.synonyms == every[1:]
        assert BENCHMARKS[less].reduce_zero_label
        assert not BENCHMARKS[full].reduce_zero_label


def test_things_of_the_two_coco_sets_are_the_same():
    things = BENCHMARKS["coco_object"].classes.titles[1:]
    stuff = BENCHMARKS["coco_stuff"].classes.titles
    assert [name.replace(" ", "") for name in things] == list(stuff[:80])


def test_categories_of_context_are_one_per_class():
    assert len(_CATEGORIES) == len(BENCHMARKS["context60"].classes)
    assert list(_CATEGORIES) == sorted(set(_CATEGORIES))


def test_land_cover_in_the_order_of_the_stored_values():
    assert BENCHMARKS["loveda"].classes.titles == (
        *("background", "building", "road", "water"),
        *("barren", "forest", "agricultural"),
    )
    assert names_of("loveda", "building") == ("building", "roof", "house")


def test_unknown_benchmark_is_told_with_the_list():
    with pytest.raises(
        errors.OptionError, match=r"O03.*voc22.*voc21, context60"
    ) as info:
        find_benchmark("voc22")
    assert info.value.code == "O03"
