"""The page in Chromium: what a person sees and does."""

import base64
import io
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from .browser import CHROMIUM, opened


pytestmark = pytest.mark.skipif(
    not os.path.exists(CHROMIUM), reason=f"there is no {CHROMIUM}"
)
STATUS = "(document.getElementById('status')?.textContent ?? '')"
IS_DONE = f"{STATUS}.startsWith('Done')"
HOSTILE = "<img src=x onerror=window.broken=1>"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def tab(chromium, client):
    chromium.faults.clear()
    chromium.resize(1280, 900)
    chromium.open(f"{client.address}")
    chromium.until(IS_DONE)
    yield chromium
    assert chromium.faults == []


def words_of(tab, text):
    tab.run(f"document.getElementById('words').value = {json.dumps(text)}")
    tab.run("document.getElementById('status').textContent = ''")
    tab.click("#go")


def classes_of(tab):
    return tab.run(
        "[...document.querySelectorAll('.legend label')].map(e => e.textContent)"
    )


def canvas_of(tab):
    """The pixels of the picture."""
    shape, data = tab.run("""(() => {
        const c = document.getElementById('picture');
        return [[c.height, c.width], c.toDataURL('image/png').split(',')[1]];
    })()""")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    assert list(pixels.shape[:2]) == shape
    return pixels.astype(int)


def test_a_person_sees_a_result_and_changes_it(tab, client):
    assert tab.run("location.pathname").startswith("/r/")
    words_of(tab, "sky, sea|ocean, house")
    tab.until(IS_DONE)
    assert set(classes_of(tab)) == {"sky", "sea", "house"}
    first = canvas_of(tab)
    tab.run("""(() => { const s = document.getElementById('opacity');
        s.value = 0; s.dispatchEvent(new Event('input')); })()""")
    assert np.abs(canvas_of(tab) - first).max() > 30
    tab.click("#modes input[value=kl]")
    tab.until(f"{STATUS}.startsWith('Done: kl')")
    tab.click("#modes input[value=velocity]")
    tab.until(f"{STATUS}.startsWith('Done: velocity')")


def test_a_slider_changes_the_result_while_it_moves(tab):
    link = tab.run("location.pathname")
    legend = "document.getElementById('legend').textContent"
    for tau in (0.05, 0.9, 0.3):
        before = tab.run(legend)
        tab.run(f"""(() => {{ const s = document.getElementById('choice-threshold');
            s.value = {tau}; s.dispatchEvent(new Event('input')); }})()""")
        tab.until(f"{legend} !== {json.dumps(before)}")
        assert tab.run(STATUS).startswith("velocity in")
    assert tab.run("location.pathname") == link  # drafts have no link
    tab.run(
        "document.getElementById('choice-threshold').dispatchEvent(new Event('change'))"
    )
    tab.until(f"{IS_DONE} && location.pathname !== '{link}'")


def test_pointing_tells_class_and_score(tab):
    box = tab.run("""(() => { const b = document.getElementById('picture')
        .getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()""")
    tab.point(box[0] + box[2] / 2, box[1] + box[3] / 10)
    name, score = tab.run("document.querySelector('#tip b').textContent").rsplit(" ", 1)
    assert name in classes_of(tab)
    assert 0 < float(score) <= 1
    assert tab.run("document.querySelector('.legend li.at label').textContent") == name
    tab.run("document.getElementById('picture').focus()")
    tab.press("ArrowRight")
    assert tab.until("document.getElementById('spoken').textContent")


def test_classes_are_toggled_and_mapped(tab):
    shown = canvas_of(tab)
    tab.click(".legend input")
    hidden = canvas_of(tab)
    assert np.abs(shown - hidden).max() > 10
    tab.click(".legend input")
    np.testing.assert_array_equal(canvas_of(tab), shown)
    tab.click(".legend button")
    assert tab.run("document.querySelector('.legend button').ariaPressed") == "true"
    assert np.abs(canvas_of(tab) - shown).max() > 10


def test_a_link_opens_its_result_and_says_when_it_has_expired(tab, client, server):
    words_of(tab, "sky, sea, grass")
    tab.until(IS_DONE)
    link = tab.run("location.pathname")
    tab.open(client.address.rstrip("/") + link)
    tab.until(f"{IS_DONE} && document.querySelectorAll('.legend li').length === 3")
    assert tab.run("document.getElementById('words').value") == "sky, sea, grass"
    for _ in range(server.limits.results):
        client.result()
    tab.open(client.address.rstrip("/") + link)
    text = tab.until("document.getElementById('error').textContent")
    assert text.startswith("V06this result is no longer kept")
    assert tab.until("document.querySelectorAll('.legend li').length")
    assert [each for each in tab.faults if "410" not in each] == []
    tab.faults.clear()


def test_a_hostile_class_name_is_only_text(tab):
    words_of(tab, f'sky, "{HOSTILE}", "</textarea><script>window.broken=2</script>"')
    tab.until(IS_DONE)
    assert HOSTILE in classes_of(tab)
    time.sleep(0.2)
    assert tab.run("window.broken === undefined")
    assert tab.run("document.querySelectorAll('img[src=x], script').length") == 1
    assert HOSTILE in tab.run("document.getElementById('notes').textContent")


def test_errors_are_told_where_they_arise(tab):
    words_of(tab, "sky; sea")
    assert "C10" in tab.until("document.getElementById('words-error').textContent")
    words_of(tab, "sky, sea")
    tab.until(IS_DONE)
    assert tab.run("document.getElementById('words-error').textContent") == ""
    assert [each for each in tab.faults if "400" not in each] == []
    tab.faults.clear()


def test_a_photo_is_chosen(tab, tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    tab.choose_file("#file", path)
    tab.until(f"{IS_DONE} && {STATUS}.includes('80 \u00d7 50')")
    assert "no drawing" in tab.run("document.getElementById('notes').textContent")
    path.write_bytes(b"GIF89a and no more")
    tab.choose_file("#file", path)
    assert "I03" in tab.until("document.getElementById('error').textContent")
    assert tab.run("document.getElementById('notes').textContent") == ""
    assert [each for each in tab.faults if "400" not in each] == []
    tab.faults.clear()


def test_the_page_fits_a_phone_and_the_keyboard_reaches_all(tab, tmp_path):
    tab.resize(360, 740, phone=True)
    assert tab.run("document.documentElement.scrollWidth") <= 360
    tab.run("document.getElementById('go').scrollIntoView()")
    words_of(tab, f"sky, {'a name without an end ' * 3}, {'Donaudampfschiff' * 3}")
    tab.until(IS_DONE)
    assert len(classes_of(tab)) == 3
    cut = "[...document.querySelectorAll('.legend label')].filter(e =>"
    assert tab.run(f"{cut} e.scrollWidth > e.clientWidth).length") == 0
    assert tab.run("document.documentElement.scrollWidth") <= 360
    top = "document.getElementById('frame').getBoundingClientRect().top"
    assert tab.until(f"{top} >= 0")  # the result can be seen
    tab.run("document.querySelector('.skip').focus()")
    reached = []
    for _ in range(60):
        tab.press("Tab")
        reached.append(tab.run("document.activeElement.id"))
    wanted = {"picture", "opacity", "copy", "download", "file", "words", "go", "theme"}
    assert wanted - {"theme"} <= set(reached)
    names = tab.run("""[...document.querySelectorAll(
        'button, input, select, textarea, a, canvas')].filter(e =>
        !(e.ariaLabel || e.labels?.length || e.textContent.trim())).length""")
    assert names == 0
    tab.screenshot(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000


def test_a_click_shows_what_belongs_to_a_place(tab):
    shown = canvas_of(tab)
    tab.click("#ask-here")
    box = tab.run("""(() => { const b = document.getElementById('picture')
        .getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()""")
    for kind in ("mousePressed", "mouseReleased"):
        tab.point(box[0] + box[2] / 2, box[1] + box[3] / 10, kind)
    tab.until(f"{STATUS}.startsWith('A walk from column 160')")
    assert np.abs(canvas_of(tab) - shown).max() > 10
    tab.click("#ask-here")
    np.testing.assert_array_equal(canvas_of(tab), shown)
