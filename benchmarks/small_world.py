"""How well the bundled networks tell drawings of their world from photographs.

    python benchmarks/small_world.py PHOTO... --save small-world

A row is a kind of picture, with the share that gets the note: for drawings, the rate of
false alarms. Photographs are given by their paths; our coffee.jpg is one of them.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import PHOTO, parse, save
from PIL import Image

from dslo_jax import Segmenter, images, pairs, scenes
from dslo_jax.bench.machine import describe_machine
from dslo_jax.pipeline import Batch
from dslo_jax.prompts import parse_classes
from dslo_jax.small_world import mean_leads, world_logits


SEEDS = range(3000, 3400)
SLOPES = (0.0, 0.8, 1.0, 1.2, 1.5)  # of the spectra of noise; photographs have about 1


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """An image after JPEG compression."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resized(image: Image.Image, scale: float) -> Image.Image:
    """An image whose sides are ``scale`` times as long."""
    width, height = (max(round(side * scale), 2) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A window of 0.4 to 0.7 of both sides."""
    width, height = (round(side * rng.uniform(0.4, 0.7)) for side in image.size)
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def noise(seed: int) -> Image.Image:
    """Noise whose spectrum falls as a power of the frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(320), np.fft.fftfreq(256)))
    frequency[0, 0] = 1
    white = rng.normal(size=(1, 256, 320)) + 0.4 * rng.normal(size=(3, 256, 320))
    spectrum = np.fft.fft2(white) / frequency ** SLOPES[seed % len(SLOPES)]
    values = np.fft.ifft2(spectrum).real
    values = 128 + 45 * (values - values.mean()) / values.std()
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def kinds(paths: list[Path]) -> Iterator[tuple[str, bool, list[Image.Image]]]:
    """Kinds of pictures: name, whether they are drawings, and pictures."""
    drawn = [Image.fromarray(scenes.draw_scene(seed).pixels) for seed in SEEDS]
    some = drawn[::2]
    yield "drawings", True, drawn
    large = (scenes.draw_scene(seed, size=(336, 448)) for seed in SEEDS[::4])
    yield "drawings of 336 x 448", True, [Image.fromarray(s.pixels) for s in large]
    for quality in (90, 60, 30):
        made = [compressed(image, quality) for image in some]
        yield f"drawings, JPEG {quality}", True, made
    for scale in (0.5, 2.0, 4.0):
        made = [resized(image, scale) for image in some]
        yield f"drawings, {scale:g} times the side", True, made
    made = [compressed(resized(image, 0.5), 60) for image in some]
    yield "drawings, half the side and JPEG 60", True, made
    photos = [Image.open(path).convert("RGB") for path in paths]
    rng = np.random.default_rng(0)
    yield "photographs", False, photos
    yield "photographs, JPEG 60", False, [compressed(photo, 60) for photo in photos]
    small = [resized(photo, 200 / max(photo.size)) for photo in photos]
    yield "photographs of 200 px", False, small
    yield (
        "crops of photographs",
        False,
        [crop(p, rng) for p in photos for _ in range(6)],
    )
    yield "noise", False, [noise(seed) for seed in range(60)]


def main() -> None:
    """Measure, print, and write the result if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path)
    options = parse(parser, repeats=1)
    networks = Segmenter.from_pretrained("demo", mode="logits", offline=True).networks
    world = pairs.find_pair("demo").world
    assert world is not None
    classes = parse_classes(world.classes)
    rows = []
    for name, is_drawn, pictures in kinds([PHOTO, *options.photos]):
        read = [images.read_photo(picture) for picture in pictures]
        batches = [Batch(networks, [photo], classes) for photo in read]
        logits = [np.asarray(world_logits(world, batch)) for batch in batches]
        leads = [float(mean_leads(each)[0]) for each in logits]
        rows.append(
            {
                "kind": name,
                "drawn": is_drawn,
                "pictures": len(leads),
                "noted": float(np.mean(np.array(leads) < world.least_lead)),
                "lead": np.quantile(leads, [0.01, 0.05, 0.5, 0.95, 0.99]).tolist(),
            }
        )
        print(rows[-1])
    if options.save:
        result = {"schema": "dslo.bench.small_world.v1", "least_lead": world.least_lead}
        print(
            save(options.save, result | {"machine": describe_machine(), "rows": rows})
        )


if __name__ == "__main__":
    main()
