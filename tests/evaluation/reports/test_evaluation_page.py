import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dslo_jax.evaluation.metrics import IGNORE, Confusion
from dslo_jax.evaluation.reports.confusion_html import confusions_in_words
from dslo_jax.evaluation.reports.evaluation_page import Example, render
from dslo_jax.outputs import palette


HOSTILE = '<script>alert("1")</script>\n&amp;'
EMPTY = {"meta", "img"}


class Page(HTMLParser):
    """What a page holds; fails on a tag that is not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(self.text)

    def images(self):
        for tag, attributes in self.tags:
            if tag == "img":
                kind, data = attributes["src"].split(",")
                assert kind in ("data:image/jpeg;base64", "data:image/png;base64")
                yield np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def plain(values):
    return [None if np.isnan(v) else float(v) for v in values]


def result(counts, titles, **config):
    total = Confusion(counts)
    scores = ("pixel_accuracy", "mean_accuracy", "weighted_iou")
    return {
        "config": config,
        "miou": total.mean_iou,
        **{name: getattr(total, name) for name in scores},
        "boundary_iou": None,
        "iou": dict(zip(titles, plain(total.iou), strict=True)),
        "accuracy": dict(zip(titles, plain(total.accuracy), strict=True)),
        "confusion": [
            [*map(int, at), int(counts[tuple(at)])] for at in np.argwhere(counts)
        ],
        "photos": [],
    }


def make_metrics(num_classes=4, *, dataset="scenes", skipped=()):
    """The last class never occurs; the first is called something unpleasant."""
    rng = np.random.default_rng(num_classes)
    titles = [HOSTILE, *(f"class {i}" for i in range(1, num_classes))]
    confused = rng.integers(1, 50, (num_classes,) * 2)
    confused[rng.random(confused.shape) < 0.8] = 0
    counts = (confused + np.diag(rng.integers(200, 900, num_classes))).astype(np.int64)
    counts[-1] = counts[:, -1] = 0
    return {
        "schema": "dslo.evaluation.v1",
        "device": {"platform": "cpu", "kind": "a & b"},
        "machine": "x86_64",
        "versions": {"jax": "1.2.3"},
        "checkpoint": "c0ffee",
        "batch_size": 4,
        "precision": "float32",
        "dataset": {"name": dataset, "photos": 5},
        "classes": titles,
        "status": "PARTIAL" if skipped else "COMPLETE",
        "expected": 5,
        "scored": 5 - len(skipped),
        "skipped": list(skipped),
        "results": {
            "velocity": result(counts, titles, mode="velocity", threshold=0.3),
            "path": result(counts.T.copy(), titles, mode="path"),
        },
    }


def make_example(name="a.jpg", miou=0.5):
    """Grey, class 1 on the left and class 2 on the right, ignored on top."""
    truth = np.ones((400, 600), np.uint8)
    truth[:, 300:] = 2
    labels = truth.astype(np.int32)
    labels[200:] = 0
    truth[:100] = IGNORE
    return Example(name, np.full((400, 600, 3), 128, np.uint8), truth, labels, miou)


def test_a_page_needs_nothing_else_and_runs_nothing():
    html = render(make_metrics(), [make_example()])
    page = Page(html)
    policy = next(a for t, a in page.tags if a.get("http-equiv"))
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none';")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        assert tag != "img" or attributes["src"].startswith("data:")


def test_what_people_wrote_is_escaped_wherever_it_stands():
    skipped = [{"name": HOSTILE, "reason": HOSTILE}]
    html = render(make_metrics(skipped=skipped), [make_example(HOSTILE)])
    assert "<script" not in html
    shown = HOSTILE.replace("\n", "\\u000a")
    page = Page(html)
    # Both skipped cells, the caption of the photo, bars, map, legend.
    assert sum(shown in text for text in page.text) >= 6
    assert any(shown in a.get("alt", "") for _, a in page.tags)
    render(make_metrics(), [make_example("\udcff.jpg")]).encode()  # a name of bytes


def test_scores_are_those_of_the_metrics():
    metrics = make_metrics()
    words = Page(render(metrics, [])).words
    for found in metrics["results"].values():
        for score in ("miou", "pixel_accuracy", "mean_accuracy", "weighted_iou"):
            assert f"{100 * found[score]:.1f} %" in words
        for score in found["iou"].values():
            assert score is None or f"{100 * score:.1f} %" in words
    assert "Never seen: class 3." in words
    assert "1.2.3" in words
    assert "c0ffee" in words
    assert "a & b" in words


def test_a_partial_report_says_so_and_why():
    skipped = [{"name": "b.jpg", "reason": "[I03] damaged"}]
    words = Page(render(make_metrics(skipped=skipped), [])).words
    assert "PARTIAL" in words
    assert "4 of 5 photos" in words
    assert "[I03] damaged" in words
    whole = Page(render(make_metrics(), [])).words
    assert "PARTIAL" not in whole
    assert "compared" not in whole


def test_what_else_keeps_scores_from_comparing_is_told():
    metrics = make_metrics(dataset="voc21")
    metrics["dataset"]["published_photos"] = 1449
    metrics["status"] = "PARTIAL"
    empty = result(np.zeros((4, 4), np.int64), metrics["classes"])
    failed = {"miou": None, "weighted_iou": None, "failed": 2, "error": "[S03] <no>"}
    metrics["results"]["path"] = {**empty, **failed}
    words = Page(render(metrics, [])).words
    assert "the benchmark has 1,449 photos" in words
    assert "path found no solution for 2 photos and has no score: [S03] <no>" in words
    assert "No pixel was scored." in words


def test_the_paper_stands_beside_its_own_data_sets_only():
    metrics = make_metrics(dataset="voc21")
    metrics["results"]["velocity"]["miou"] = 0.658
    metrics["results"]["path"]["miou"] = None
    words = Page(render(metrics, [])).words
    assert "67.8 % (-2.0)" in words
    assert "68.9 % (-3.1)" in words
    assert "66.9 %" in words  # of the path, without a gap
    assert "arXiv 2604.07723v1, Table 1" in words
    assert "arXiv" not in Page(render(make_metrics(), [])).words


def test_worst_photos_come_first_and_best_last():
    examples = [make_example(f"{m}.jpg", m / 10) for m in (5, 1, 9, 3, 7)]
    html = render(make_metrics(), examples)
    order = [int(m) for m in re.findall(r"<figcaption>(\d)\.jpg", html)]
    assert order == [1, 3, 5, 9, 7]
    assert html.index("Worst") < html.index("1.jpg") < html.index("Best")
    one = render(make_metrics(), [make_example()])
    assert "Worst photos" in one
    assert "Best photos" not in one
    assert "photos</h2>" not in render(make_metrics(), [])


def test_pictures_show_truth_and_labels_in_the_colours_of_the_legend():
    metrics = make_metrics()
    html = render(metrics, [make_example()])
    page = Page(html)
    photo, truth, labels = page.images()
    assert photo.shape == truth.shape == labels.shape == (400, 600, 3)
    colours = palette(metrics["classes"]).astype(float)
    # An opacity of 0.65 over grey; JPEG changes a value by a few.
    mixed = 0.65 * colours + 0.35 * 128
    for image, at, expected in [
        (truth, (50, 100), [128] * 3),
        (truth, (300, 100), mixed[1]),
        (truth, (300, 500), mixed[2]),
        (labels, (50, 100), [128] * 3),
        (labels, (150, 500), mixed[2]),
        (labels, (300, 500), mixed[0]),
    ]:
        np.testing.assert_allclose(image[at], expected, atol=6)
    entries = re.findall(r"background: (rgb\([\d ]+\))", html)
    shown = ["rgb({} {} {})".format(*map(int, colours[i])) for i in (0, 1, 2)]
    assert sorted(entries) == sorted(shown)


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (2000, 1500)])
def test_pictures_of_any_size_are_small(shape):
    truth = np.zeros(shape, np.uint8)
    photo = np.zeros((*shape, 3), np.uint8)
    example = Example("x", photo, truth, truth.astype(np.int32), 1.0)
    for image in Page(render(make_metrics(), [example])).images():
        assert max(image.shape) <= 4096
        assert image.size < 4e6


def test_confusions_in_words_are_the_largest():
    counts = np.array([[60, 30, 10], [0, 5, 0], [20, 0, 0]])
    rows = re.findall(r"<tr><td>.*?</tr>", confusions_in_words(counts, ["a", "b", "c"]))
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert cells == [
        ["a", "b", "30.0 %", "50.0 %"],
        ["c", "a", "100.0 %", "33.3 %"],
        ["a", "c", "10.0 %", "16.7 %"],
    ]
    assert "Every pixel is right" in confusions_in_words(np.diag([3, 4]), ["a", "b"])
    assert "No pixel was scored" in confusions_in_words(np.zeros((2, 2), int), "ab")


@pytest.mark.parametrize("num_classes", [1, 6, 171])
def test_a_map_has_a_cell_for_every_share_worth_seeing(num_classes):
    metrics = make_metrics(num_classes + 1)
    html = render(metrics, [])
    Page(html)
    cells = [
        (count / sum(n for t, _, n in found["confusion"] if t == true), true, given)
        for found in metrics["results"].values()
        for true, given, count in found["confusion"]
    ]
    worth = [(true, given) for share, true, given in cells if share >= 0.002]
    assert len(re.findall(r"<rect ", html)) == len(worth)
    right = sum(true == given for true, given in worth)
    assert len(re.findall(r"<title>[^<]* found: ", html)) == right
    assert len(html) < 3e6
