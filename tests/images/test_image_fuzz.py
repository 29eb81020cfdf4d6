"""Any bytes give a photo or an ``ImageError``, in bounded memory and time."""

import contextlib
import io
import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st
from pictures import encode, noise
from PIL import Image, ImageCms

from dslo_jax.errors import ImageError
from dslo_jax.images import read_photo


IMAGE = Image.fromarray(noise(12, 16))
FRAMES = [Image.fromarray(noise(12, 16, seed=seed)) for seed in (1, 2)]
MANY = {"save_all": True, "append_images": FRAMES}
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a description"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FILES = {
    "JPEG": encode(IMAGE, "JPEG", exif=EXIF, icc_profile=PROFILE),
    "CMYK": encode(IMAGE.convert("CMYK"), "JPEG"),
    "MPO": encode(IMAGE, "MPO", **MANY),
    "PNG": encode(IMAGE, "PNG", exif=EXIF, icc_profile=PROFILE),
    "palette": encode(IMAGE.quantize(16), "PNG", transparency=3),
    "APNG": encode(IMAGE, "PNG", **MANY),
    "GIF": encode(IMAGE, "GIF", **MANY),
    "TIFF": encode(IMAGE, "TIFF", exif=EXIF, **MANY),
    "LZW": encode(IMAGE, "TIFF", compression="tiff_lzw", icc_profile=PROFILE),
    "BigTIFF": encode(IMAGE, "TIFF", big_tiff=True),
    "WebP": encode(IMAGE, "WEBP", exif=EXIF.tobytes(), icc_profile=PROFILE),
    "animated WebP": encode(IMAGE, "WEBP", **MANY),
    "AVIF": encode(IMAGE, "AVIF", exif=EXIF.tobytes()),
    "JPEG 2000": encode(IMAGE, "JPEG2000"),
    "BMP": encode(IMAGE, "BMP"),
    "PPM": encode(IMAGE, "PPM"),
}
try:
    import pillow_heif
except ImportError:
    pass
else:
    FILE, HEIC = io.BytesIO(), pillow_heif.HeifFile()
    HEIC.add_from_pillow(IMAGE)
    HEIC.save(FILE)
    FILES["HEIC"] = FILE.getvalue()

# What is written over some bytes: numbers that are large, small or negative.
NUMBERS = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\1\0\0\0", b"\0\0\xff\xff"]
change = st.tuples(
    st.sampled_from(["byte", "number", "insert", "cut", "repeat"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(NUMBERS), st.binary(min_size=1, max_size=8)),
)


def changed(content, changes):
    content = bytearray(content)
    for kind, share, written in changes:
        place = int(share * len(content))
        if kind == "byte":
            content[place : place + 1] = written[:1]
        elif kind == "number":
            content[place : place + len(written)] = written
        elif kind == "insert":
            content[place:place] = written
        elif kind == "cut":
            content = content[: max(4, place)]
        else:
            content[place:place] = content[place : place + 64]
    return bytes(content)


def read_or_refuse(content, page=0):
    with contextlib.suppress(ImageError):
        height, width, _ = read_photo(content, page=page, max_pixels=10**6).pixels.shape
        assert 4 <= height * width <= 10**6


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(change, min_size=1, max_size=5), st.integers(0, 1))
def test_changed_bytes(kind, changes, page):
    read_or_refuse(changed(FILES[kind], changes), page)


@pytest.mark.parametrize("kind", [*FILES, ""])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(4, 64))
def test_random_bytes_after_a_true_start(kind, content, length):
    start = FILES[kind][:length] if kind else b""
    read_or_refuse(start + content)


@pytest.mark.parametrize("kind", FILES)
def test_every_whole_file_is_read(kind):
    assert read_photo(FILES[kind]).pixels.size == 12 * 16 * 3


MEMORY = """
import random, resource, sys
sys.path.insert(0, "tests/images")
from test_image_fuzz import FILES, NUMBERS, changed, read_or_refuse
rng = random.Random(0)
kinds = ["byte", "number", "number", "insert", "repeat"]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for content in FILES.values():
    for _ in range(60):
        changes = [(rng.choice(kinds), rng.random() ** 3, rng.choice(NUMBERS))]
        read_or_refuse(changed(content, changes * rng.randrange(1, 3)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded(request):
    """Sizes that a damaged header claims are not allocated, but refused."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 300_000  # kilobytes
