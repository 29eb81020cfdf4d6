"""What ``make demo`` shows: true truth, right scores, a sheet that stands alone."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dslo_jax import SegmenterConfig, pairs, scenes
from dslo_jax.demo import __main__ as demo, sheet as sheets
from dslo_jax.demo.components import KNOWN, Components, points
from dslo_jax.demo.sheet import COLUMNS, MODES, SIZE, WORLD, Exhibit, Sheet, translate
from dslo_jax.demo.sheet_html import to_html
from dslo_jax.demo.sheet_png import to_image
from dslo_jax.evaluation.metrics import IGNORE
from dslo_jax.images import Photo
from dslo_jax.outputs.page import percent
from dslo_jax.pipeline.stages import Timing
from dslo_jax.prompts import parse_classes, split_classes
from dslo_jax.segmentation import ClassReport, Segmentation


SEED = 13
WIDTH = 1546


def segmentation(labels, pixels, names, *, rejected=(), seconds=1.0, mode="path"):
    """A result with these labels, whose maps are random."""
    maps = np.random.default_rng(0).random((len(names), 4, 4), np.float32)
    return Segmentation(
        labels=labels.astype(np.int32),
        synonyms=tuple((name,) for name in names),
        discrepancy=maps,
        reports=tuple(
            ClassReport(name, name in rejected, 1, 0.0, True, "CONVERGED", 0.0)
            for name in names
        ),
        ties=0.0,
        timings=(Timing("clip", seconds, 0.5),),
        notes=(),
        photo=Photo(pixels, None, (), False),
        config=SegmenterConfig.of(mode=mode),
    )


def rows_of(pixels, truth, classes, rows=None):
    """Right labels with a true affinity, and class 0 everywhere in all other rows."""
    right = np.where(truth == IGNORE, 0, truth).astype(np.int32)
    names = Components(None, SegmenterConfig()).cells
    return {row: right if row == KNOWN else 0 * right for row in rows or names}


def exhibit(classes=WORLD, seed=SEED, **options) -> Exhibit:
    """A scene whose path is right everywhere and whose other modes see class 0."""

    def segment(mode, pixels, classes):
        labels = np.zeros(SIZE)
        if mode == "path":
            truth = translate(scenes.draw_scene(seed, size=SIZE).labels, classes)
            labels = np.where(truth == IGNORE, 0, truth)
        return segmentation(labels, pixels, classes.titles, **options)

    return sheets.show(seed, classes, segment, rows_of)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    own = exhibit(split_classes('ocean, "<b>dragon</b>", ship'))
    return Sheet((exhibit(), exhibit(seed=9)), own)


@pytest.fixture(scope="module")
def text(sheet) -> str:
    return to_html(sheet, "next <words>", "made <today>")


class TestTruth:
    def test_in_the_words_of_the_world_is_the_truth_itself(self):
        labels = scenes.draw_scene(SEED, size=SIZE).labels
        np.testing.assert_array_equal(translate(labels, WORLD), labels)

    def test_in_other_words(self):
        labels = np.arange(20, dtype=np.uint8)[None]
        classes = parse_classes(["Ocean", ("house", "sand"), "dragon", "lamb"])
        expected = np.full((1, 20), IGNORE)
        for name, index in (("sea", 0), ("house", 1), ("sand", 1), ("sheep", 3)):
            expected[0, scenes.NAMES.index(name)] = index
        np.testing.assert_array_equal(translate(labels, classes), expected)

    def test_of_two_words_for_one_thing_the_first_stands(self):
        labels = np.full((1, 1), scenes.NAMES.index("sea"), np.uint8)
        assert translate(labels, parse_classes(["ship", "sea", "ocean"])) == 1


class TestScores:
    def test_are_against_the_truth(self, sheet):
        assert sheet.scores["path"] == 1
        assert sheet.scores["path, true affinity"] == 1
        assert 0 < sheet.scores["baseline"] == sheet.scores["velocity"] < 0.1
        # Sky alone is found in 20 classes, or in those that these two scenes show.
        both = np.concatenate([each.truth.ravel() for each in sheet.world])
        share = np.mean(both == scenes.NAMES.index("sky"))
        expected = share / len(np.unique(both))
        assert sheet.scores["baseline"] == pytest.approx(expected)

    def test_of_words_without_truth_are_a_dash(self):
        nothing = exhibit(parse_classes(["dragon", "unicorn"]))
        assert percent(nothing.scores["path"]) == "-"
        assert percent(0.4567) == "45.7 %"

    def test_components_say_what_each_row_adds(self, sheet):
        scores = {score.row: score for score in sheet.components}
        low = sheet.scores["velocity"]
        assert scores["I: logits"][2:] == (pytest.approx(low), "", None)
        assert points(scores["I: logits"]) == ""
        assert points(scores["V: IV + O.P."]) == "+0.0"
        assert scores[KNOWN].gain == pytest.approx(1 - low)
        assert points(scores[KNOWN]) == f"{100 - 100 * low:+.1f}"

    def test_times_are_medians_by_stage_and_mode(self):
        world = tuple(exhibit(seconds=seconds) for seconds in (1.0, 2.0, 9.0))
        (time,) = Sheet(world, world[0]).times
        assert time == ("clip", dict.fromkeys(MODES, 2.0), 4.5)


class TestPictures:
    def test_panels_have_one_size(self, sheet):
        panels = sheets.draw_panels(sheet.own)
        assert tuple(panels) == sheets.COLUMNS
        assert len({panel.size for panel in panels.values()}) == 1

    def test_what_was_not_asked_for_stays_a_photo(self, sheet):
        panels = sheets.draw_panels(sheet.own)
        photo, truth = (np.asarray(panels[name]) for name in ("photo", "truth"))
        factor = photo.shape[0] // SIZE[0]
        unasked = (sheet.own.truth == IGNORE).repeat(factor, 0).repeat(factor, 1)
        np.testing.assert_array_equal(photo[unasked], truth[unasked])
        assert (photo[~unasked] != truth[~unasked]).any(axis=-1).mean() > 0.9

    def test_a_map_runs_from_black_to_the_colour_of_its_class(self, sheet):
        shown = sheet.world[0]
        picture = np.asarray(sheets.draw_map(shown, "path", 3))
        assert picture.shape == (4, 4, 3)
        assert not picture.min(axis=(0, 1)).any()
        colour = sheets.palette(shown.names)[3]
        np.testing.assert_array_equal(picture.max(axis=(0, 1)), colour)

    def test_a_rejected_class_has_no_map(self):
        shown = exhibit(rejected=("sea",))
        assert sheets.draw_map(shown, "path", scenes.NAMES.index("sea")) is None
        sheet = Sheet((shown,), shown)
        assert "rejected" in to_html(sheet, "", "")
        assert to_image(sheet).width == WIDTH


class _Page(HTMLParser):
    """Notes tags and attributes; every tag that needs it must be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


class TestPage:
    def test_needs_nothing_else(self, text):
        page = _Page(text)
        assert page.open == []
        assert "script" not in page.tags
        assert "link" not in page.tags
        assert page.tags.count("img") >= 3 * len(COLUMNS)
        assert all(source.startswith("data:image/") for source in page.sources)

    def test_quotes_what_people_type(self, text):
        hostile = exhibit(split_classes('"<b>dragon</b>", ship'), rejected=())
        asked = to_html(Sheet((exhibit(),), hostile), "", "")
        assert "&lt;b&gt;dragon&lt;/b&gt;" in asked
        assert "<b>dragon" not in asked
        assert "made &lt;today&gt;" in text
        assert "<pre>next &lt;words&gt;</pre>" in text

    def test_says_how_well(self, text):
        assert "<b>100.0 %</b>path, true affinity" in text
        assert "path, mIoU 100.0 %" in text
        assert "and no photographs" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "10000"], "O01"),
        (["--seeds", "-1"], "O01"),
        (["--classes", "cat,,dog"], "C01"),
        (["--classes", "cat", "--classes", "dog, cat"], "C02"),
        (["--classes", ",".join(f"thing {n}" for n in range(256))], "O01"),
    ],
)
def test_bad_options_are_told_before_anything_runs(arguments, words, tmp_path, capsys):
    assert demo.main([*arguments, "--out", str(tmp_path / "out")]) in (2, 3)
    assert f"[{words}]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interruption_is_no_failure_of_the_program(tmp_path, monkeypatch, capsys):
    def interrupt(status):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_load", interrupt)
    assert demo.main(["--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_missing_checkpoint_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(pairs.BUNDLED, "demo", tmp_path)
    assert demo.main(["--out", str(tmp_path / "out")]) == 4
    assert "[W01]" in capsys.readouterr().err


def test_from_scenes_to_sheet(tmp_path, monkeypatch, capsys):
    def load(status):
        def segment(mode, pixels, classes):
            labels = np.zeros(SIZE)
            return segmentation(labels, pixels, classes.titles, mode=mode)

        return segment, rows_of

    monkeypatch.setattr(demo, "_load", load)
    out = tmp_path / "out"
    arguments = ["--seeds", str(SEED), "--classes", "ocean, cottage|peak, dragon"]
    for name in ("scene-1", "scene-9"):
        (out / name).mkdir(parents=True)
    (out / "scenes.txt").write_text("own-words\nscene-9\n")  # of the demo before
    assert demo.main([*arguments, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for words in (f"scene {SEED}", "own words", "baseline", "clip", "sheet.html"):
        assert words in said
    assert f"segment {out / f'scene-{SEED}'}" in said.replace("\n", " ")
    assert not (out / "scene-9").exists()
    assert (out / "scene-1").exists()  # not written by a demo
    drawn = scenes.draw_scene(SEED, size=SIZE).pixels
    with Image.open(out / f"scene-{SEED}" / "photo.png") as photo:
        np.testing.assert_array_equal(np.asarray(photo), drawn)
    for name, classes in ((f"scene-{SEED}", 20), ("own-words", 3)):
        for mode in MODES:
            summary = json.loads((out / name / mode / "segmentation.json").read_text())
            assert len(summary["classes"]) == classes
            assert summary["config"]["mode"] == mode
            with np.load(out / name / mode / "maps.npz") as maps:
                assert len(maps) == classes
    assert (out / "sheet.html").stat().st_size > 50_000
    with Image.open(out / "sheet.png") as picture:
        assert picture.width == WIDTH
