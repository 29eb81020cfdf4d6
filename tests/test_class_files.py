"""Class lists in files: every form is read right, or refused with its line."""

import codecs
import contextlib
import csv
import io
import itertools
import json
import re

import pytest
from hypothesis import assume, given, settings, strategies as st

from dslo_jax.errors import ClassListError
from dslo_jax.prompts import (
    ClassList,
    classes_of_options,
    parse_classes,
    read_class_file,
    split_classes,
)


MANY = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "classes.txt"


def refused(path, content, code, said, **options):
    """A file is refused with a code and a message."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ClassListError, match=said) as error:
        read_class_file(path, **options)
    assert error.value.code == code


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_class_file(path, **options)


# ---------------------------------------------------------------- what is read


THREE = ClassList((("wall",), ("cat", "kitten"), ("5 euro note",)))


@pytest.mark.parametrize(
    "content",
    [
        "0, wall\n1, cat; kitten\n2, 5 euro note",
        "id;name\r\n0;wall\r\n1;cat;kitten\r\n2;5 euro note\r\n",
        "Idx\tName\n0\twall\n1\tcat, kitten\n2\t5 euro note\n",
        "0: wall\n1: cat, kitten\n2: 5 euro note",
        "class_id|Class Name\n0|wall\n1|cat|kitten\n2|5 euro note",
        '"id","name","synonyms"\n"0","wall"\n"1","cat","kitten"\n"2","5 euro note"',
        "names:\n  0: wall\n  1: cat, kitten\n  2: 5 euro note",
        "0 wall\n\n1 cat|kitten\n# money\n2 5 euro note",
        "wall\ncat;kitten\n5 euro note",  # a name may start with a number
        "wall\ncat\tkitten\n5 euro note",
        'wall\r"cat"  |  kitten\r"5 euro note"\r',
        "# my classes\nwall\n  # and animals\ncat,kitten\n5 euro note # 1"[:-4],
        '["wall", ["cat", "kitten"], "5 euro note"]',
        '[{"name": "wall"}, {"name": "cat", "synonyms": ["kitten"], "id": 1},\n'
        '"5 euro note"]',
        '{"0": "wall", "2": "5 euro note", "1": ["cat", "kitten"]}',
    ],
)
def test_forms_of_one_list(path, content):
    found = read(path, content)
    assert found == THREE
    assert found.notes == ()


def test_labels_by_names_in_json(path):
    assert read(path, '{"sea": 1, "0": 2, "sky": 0}').titles == ("sky", "sea", "0")


def test_a_list_of_cvat(path):
    content = (
        "# label:color_rgb:parts:actions\n\nbackground:0,0,0::\n"
        "traffic: light, red:250,50,83:head,hand:walk\nsea:::\n"
    )
    names = ("background", "traffic: light, red", "sea")
    assert read(path, content).titles == names
    assert "CVAT" in read(path, content).notes[0]
    assert read(path, "sky:0,0,0::\nsea:128,0,0::").titles == ("sky", "sea")
    refused(path, content + "sky", "C10", "line 6: 'sky' is no line of CVAT's list")
    refused(path, content + "sea:1,2,3::", "C02", "line 6 repeats a name of .*line 5")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]
)
def test_encodings_and_line_ends_of_editors(path, encoding, end):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    content = mark + end.join(["naïve café", "# 猫", "猫,🐶", ""]).encode(encoding)
    assert read(path, content).synonyms == (("naïve café",), ("猫", "🐶"))


def test_marks_of_joined_files_are_removed(path):
    assert read(path, "\ufeffsky\n\ufeffsea\n").titles == ("sky", "sea")


def test_blank_lines_are_skipped_with_a_note(path):
    found = read(path, "\nsky\n \nsea\n\n\n")
    assert found.titles == ("sky", "sea")
    assert re.search("blank lines were skipped.*line 1.*labels count", found.notes[0])
    assert read(path, "sky\nsea\n\n\n").notes == ()


def test_blank_lines_are_refused_where_labels_are_fixed(path):
    options = {"allow_blank_lines": False}
    refused(path, "sky\n\nsea", "C08", "line 2, is blank", **options)
    refused(path, "# all\n\nsky", "C08", "line 2, is blank", **options)
    assert len(read(path, "sky\n# more\nsea\n\n", **options)) == 2
    assert len(read(path, "0 sky\n\n1 sea", **options)) == 2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0, wall\n2, cat", "line 2, has id 2, expected 1: ids count up from 0"),
        ("1, wall\n2, cat", "line 1, has id 1, expected 0"),
        ("7 road\n8 sidewalk", "line 1, has id 7, expected 0.*double quotes"),
        ("id,name\n0,wall\n0,cat", "line 3, has id 0, expected 1"),
        ("id,name\n7,wall\n8,cat", "line 2, has id 7, expected 0"),
        ("id,name\nwall\ncat", "line 2, has no id, expected 0"),
        ('"0","wall"\n"1","cat"', "line 1, begins with an id in quotes"),
        ('"1","wall"\n"2","cat"', "line 1, begins with an id in quotes"),
        ("0, wall\ncat", "line 2, has no id, expected 1"),
        ("0, wall\n\ncat", "line 3, has no id, expected 1"),
        ("wall\n0 cat\n1 dog", "line 1, has no id, expected 0.*header, remove it"),
        ("Idx\tRatio\tName\n1\t0.2\twall", "line 1, has no id.*header, remove it"),
        ("Name\nwall\ncat", "line 1, 'Name' is a header; remove it"),
        ("# c\nname,synonyms\nwall,cat", "line 2, 'name,synonyms' is a header"),
        ('[{"id": 1, "name": "wall"}]', "class 1 has id 1, expected 0"),
        ('[{"id": false, "name": "wall"}]', "class 1 has id False, expected 0"),
        ('{"1": "wall", "2": "cat"}', "has 2 ids but no id 0"),
        ('{"0": "wall", "00": "cat"}', "has 2 ids but no id 1"),
        ('{"wall": 0, "cat": 0}', "has 2 ids but no id 1"),
    ],
)
def test_ids_that_are_not_the_labels_are_refused(path, content, said):
    refused(path, content, "C08", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('cat\n"table, wooden', "line 2: .* does not close"),
        ("cat\n\ndog # mine", "line 3: 'dog # mine' seems to hold a comment"),
        ("sky\nwall,120,120,120", "line 2: '120' is a number"),
        ("name\nwall,0\ncat,1"[5:], "line 1: '0' is a number"),
        ("wall, partition\ncat;kitten", "line 2, has semicolons, line 1 has commas"),
        ("sky\nsofa|couch, wall", "line 2, has commas, line 2 has bars"),
        ("cat, dog, wall", "line 1, is the only class and has 3 names"),
        ("wall\nsea:128,0,0::", "line 2: 'sea:128' holds a colon"),
        ("train: images\nnames:\n0: cat", "line 1: .* holds a colon"),
        ("- wall\n- cat", "line 1: '- wall' begins with the mark of a list"),
        ("<!DOCTYPE html>\n<html>", "line 1: .* JSON or markup"),
        ('["cup",\n"table"', "line 2, column 8, is no JSON"),
        ('# json\n["cup"]', "line 2: .*double quote inside|JSON"),
        ("['cup', 'table']", "line 1, column 2, is no JSON"),
        ('["cup", 5]', "class 2 is 5; expected a list such as"),
        ('[{"nam": "cup"}]', "class 1 is {'nam': 'cup'}; expected"),
        ('[{"name": "cup", "color": "red"}]', "class 1 has the key 'color'"),
        ('[{"name": "cup", "synonyms": "mug"}]', "class 1 has the synonyms 'mug'"),
        ('{"0": "wall", "0": "cat"}', "the key '0' stands 2 times"),
        ('{"names": ["wall"]}', "is the object {'names': .*}; expected"),
        ("[" * 100_000, "recursion|no JSON"),
        ("[" + "9" * 5000 + "]", "digits"),
    ],
)
def test_what_can_be_read_in_two_ways_or_in_none_is_refused(path, content, said):
    refused(path, content, "C10", said)


def test_bad_class_files(path):
    for missing in (path, path.parent, path.parent / "a\0b"):
        with pytest.raises(ClassListError, match=r"C07.*cannot be read"):
            read_class_file(missing)
    for content, code, said in (
        (b"", "C01", "there is no class"),
        (b"# only a comment\n\n", "C01", "there is no class"),
        (b"[]", "C01", "there is no class"),
        (b"cat\ndog, ", "C01", "line 2 has a blank name"),
        (b"cat\n,dog", "C01", "line 2 has a blank name"),
        (b'cat\n""', "C01", "line 2 has a blank name"),
        (b"0, wall\n1,", "C01", "line 2 has a blank name"),
        (b"cat\ndog\nCAT", "C02", "line 3 repeats a name of .*line 1"),
        (b"id,name\n0,wall\n1,Wall", "C02", "line 3 repeats a name of .*line 2"),
        (b'["cat", "Cat"]', "C02", "class 2 repeats a name of .*class 1"),
        (b'[["cat", 5]]', "C04", "class 1 holds 5 of type int"),
        (b"cat\nd\0g", "C06", "line 2"),
        (b"cat\nd\xef\xbb\xbfg", "C06", "line 2"),
        (b"cat\n\xff\xfe", "C07", "line 2, is not UTF-8"),
        (b"cat\r\rcaf\xe9", "C07", "line 3, is not UTF-8"),
        ("cat\ndog".encode("utf-16-le"), "C07", "line 1, is not UTF-8"),
        (codecs.BOM_UTF16_LE + b"c\0\n\0d", "C07", "line 2, is not UTF-16"),
        (b"cat\n" * (1 << 20) + b"c", "C07", "more than 4194304 bytes"),
    ):
        refused(path, content, code, said)


# ---------------------------------------------------------------- every name survives


PLAIN = re.compile(r"[^\W\d_]+( [^\W\d_]+)*")
ID_WORDS = {"id", "idx", "index", "no", "nr", "number"}
NAME_WORDS = {"name", "class", "label", "category", "title", "synonym"}
NAME_WORDS |= {"names", "classes", "labels", "categories", "synonyms", "classname"}
CHARACTERS = st.characters(exclude_categories=("Cc", "Cs"))
NAMES = (
    st.text(CHARACTERS, min_size=1, max_size=8)
    | st.text("\"',;|#:[]{}019. -“”<\ufeffa", min_size=1, max_size=6)
    | st.sampled_from(["wall", "cat", "name", "5", "0, x", "# a", "1 euro", "id", "["])
)
CLASSES = st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=5)


def usable(classes):
    """The classes as Python takes them, or None."""
    try:
        return parse_classes(classes)
    except ClassListError:
        return None


def field(name):
    """A name as a careful person writes it: in quotes, unless it is plain words."""
    plain = PLAIN.fullmatch(name.strip()) and name.strip().casefold() not in NAME_WORDS
    return name if plain else '"' + name.replace('"', '""') + '"'


def seem_ids(classes):
    """Whether the names before synonyms have the form of ids, or those of a header."""
    names = [each[0] for each in classes.synonyms if len(each) > 1]
    numbers = [int(name) for name in names if re.fullmatch("[0-9]{1,9}", name)]
    counting = all(b == a + 1 for a, b in itertools.pairwise(numbers))
    words = {name.casefold() for name in classes.synonyms[0]}
    return (len(numbers) == len(classes) > 1 and counting) or (
        len(words) > 1 and words <= ID_WORDS | NAME_WORDS
    )


def text_of(classes, separator, ids):
    rows = [separator.join(map(field, names)) for names in classes.synonyms]
    return [ids.format(label) + row for label, row in enumerate(rows)]


@MANY
@given(
    CLASSES,
    st.sampled_from([",", ";", "|", "\t", " | "]),
    st.sampled_from(["", "{}: ", "{},", "{}\t", "{} "]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
def test_names_in_lines(tmp_path_factory, classes, separator, ids, encoding, end, odd):
    expected = usable(classes)
    assume(expected is not None)
    if len(expected) == 1 and not ids:
        separator = "|"
    lines = text_of(expected, separator, ids)
    assume(ids or not seem_ids(expected))
    if odd:
        lines = ["# classes", "", *(line for row in lines for line in (row, " ", "#"))]
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    assert read(path, end.join(lines).encode(encoding)) == expected


@MANY
@given(CLASSES)
def test_names_in_csv(tmp_path_factory, classes):
    expected = usable(classes)
    assume(expected is not None)
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "name"])
    writer.writerows([label, *names] for label, names in enumerate(expected.synonyms))
    path = tmp_path_factory.getbasetemp() / "classes.csv"
    assert read(path, file.getvalue()) == expected


@MANY
@given(CLASSES, st.sampled_from([None, 2]), st.booleans())
def test_names_in_json(tmp_path_factory, classes, indent, ascii_only):
    expected = usable(classes)
    assume(expected is not None)
    by_id = {str(i): names for i, names in enumerate(expected.synonyms)}
    objects = [
        {"id": label, "name": names[0], "synonyms": names[1:]}
        for label, names in enumerate(expected.synonyms)
    ]
    path = tmp_path_factory.getbasetemp() / "classes.json"
    for content in (expected.synonyms, by_id, objects):
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
        assert read(path, text) == expected
        assert split_classes(text) == expected


@MANY
@given(CLASSES)
def test_names_on_a_command_line(classes):
    expected = usable(classes)
    assume(expected is not None)
    values = ["|".join(map(field, names)) for names in expected.synonyms]
    assert split_classes(", ".join(values)) == expected
    assert classes_of_options(values) == expected


@MANY
@given(st.lists(NAMES, min_size=1, max_size=5))
def test_names_in_a_list_of_cvat(tmp_path_factory, names):
    expected = usable(names)
    assume(expected is not None)
    assume(not any(name.startswith("#") for name in expected.names))
    lines = [f"{name}:{label},0,0::" for label, name in enumerate(expected.titles)]
    path = tmp_path_factory.getbasetemp() / "labelmap.txt"
    content = "\n".join(["# label:color_rgb:parts:actions", *lines])
    assert read(path, content) == expected


# ---------------------------------------------------------------- any bytes


PARTS = [b"cat", b"dog", b"0", b"1, ", b"2: ", b"id", b"name", b'"', b'""', b"'"]
PARTS += [b",", b";", b"|", b"\t", b"\n", b"\r", b" ", b"#", b":", b"\0", b"\xff"]
PARTS += [b"[", b"]", b"{", b"}", b'"a"', b'{"0":', b'"name":', b"1e999", b"null"]
PARTS += [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE, b":0,0,0::"]
BYTES = st.binary(max_size=40) | st.lists(st.sampled_from(PARTS)).map(b"".join)
WHOLE = "there is no class|is the object|ids but no id|stands .* times"


@settings(MANY, max_examples=500)
@given(BYTES)
def test_any_bytes_are_a_list_or_an_error_with_its_place(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    found, message = None, ""
    try:
        found = read(path, content)
    except ClassListError as error:
        message = str(error)
    if found is None:
        assert re.search(rf"line \d+|class \d+|{WHOLE}", message)
    else:
        assert found == parse_classes(found.synonyms)


@settings(MANY, max_examples=250)
@given(BYTES)
def test_any_text_of_an_option_is_a_list_or_an_error(content):
    text = content.decode(errors="surrogateescape")
    for read_text in (split_classes, lambda text: classes_of_options(["sky", text])):
        with contextlib.suppress(ClassListError):  # and no other
            assert len(read_text(text)) > 0
