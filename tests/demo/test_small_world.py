"""The bundled networks say which words and photos they do not know."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dslo_jax import Segmenter, images, pairs, scenes, small_world
from dslo_jax.pipeline import Batch
from dslo_jax.prompts import parse_classes, read_class_file


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COFFEE = BENCHMARKS / "coffee.jpg"
FOREIGN = "this is no drawing of the world"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained("demo", mode="logits", offline=True)


def leads_of(segmenter, pictures):
    world = pairs.find_pair("demo").world
    photos = [images.read_photo(picture) for picture in pictures]
    networks = segmenter.networks
    words = parse_classes(["sky"])
    batches = [Batch(networks, [photo], words) for photo in photos]
    logits = [np.asarray(small_world.world_logits(world, batch)) for batch in batches]
    return [small_world.mean_leads(each)[0] for each in logits]


def test_only_the_bundled_pair_has_a_world(tmp_path):
    assert pairs.find_pair("demo").world.classes[3] == ("sea", "ocean", "water")
    assert all(pair.world is None for pair in pairs.PAIRS.values())
    assert pairs.find_pair(tmp_path).world is None


def test_drawings_and_known_words_have_no_note(segmenter):
    photos = [scenes.draw_scene(seed, size=(128, 160)).pixels for seed in range(8)]
    results = segmenter.batch(photos, ["sky", "The Sea", "a  meadow"], batch_size=3)
    assert [result.notes for result in results] == [()] * 8


def test_a_photograph_has_a_note_whatever_the_options(segmenter):
    for options in ({}, {"short_side": 96}):
        result = segmenter(COFFEE, ["sky", "sea"], **options)
        (note,) = result.notes
        assert note.startswith(FOREIGN)
        assert note in result.summary()["notes"]


def test_unknown_words_are_named(segmenter):
    photo = scenes.draw_scene(0).pixels
    (note,) = segmenter(photo, ["sky", ("cup", "sea", "mug"), "Clouds"]).notes
    assert "do not know: cup, mug, Clouds. They know only sky, cloud" in note
    many = [f"thing {number}" for number in range(30)]
    (note,) = segmenter(photo, many).notes
    assert "thing 9 and 20 more." in note


def test_another_clip_may_know_the_word():
    folder = pairs.BUNDLED["demo"] / "clip"
    segmenter = Segmenter.from_pretrained("demo", clip=folder, mode="logits")
    assert segmenter(scenes.draw_scene(0).pixels, ["sky", "cup"]).notes == ()


def test_notes_of_the_class_list_reach_the_result(segmenter, tmp_path):
    (tmp_path / "names.txt").write_text("sky\n\nsea\n")
    classes = read_class_file(tmp_path / "names.txt")
    assert segmenter(scenes.draw_scene(0).pixels, classes).notes == classes.notes


def test_compressed_and_resized_drawings_are_still_drawings(segmenter):
    made = []
    for seed in range(4):
        image = Image.fromarray(scenes.draw_scene(seed).pixels)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=60)
        made += [file.getvalue(), image.resize((200, 200)), image.resize((70, 70))]
    world = pairs.find_pair("demo").world
    assert np.mean(np.array(leads_of(segmenter, made)) < world.least_lead) <= 1 / 12


def test_noise_is_no_drawing(segmenter):
    rng = np.random.default_rng(0)
    white = rng.integers(0, 256, (128, 160, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(white[:16, :20]).resize((160, 128)))
    grey = np.full((128, 160, 3), 128, np.uint8)
    world = pairs.find_pair("demo").world
    assert max(leads_of(segmenter, [white, smooth])) < world.least_lead
    assert np.isfinite(leads_of(segmenter, [grey])).all()


def test_the_card_has_the_measured_rates():
    measured = json.loads((BENCHMARKS / "results" / "small-world.json").read_text())
    assert measured["least_lead"] == pairs.find_pair("demo").world.least_lead
    card = (pairs.BUNDLED["demo"] / "README.md").read_text(encoding="utf-8")
    for row in measured["rows"]:
        rate = f"{100 * row['noted']:.3g} %"
        assert f"| {row['kind']} | {row['pictures']} | {rate} |" in card
