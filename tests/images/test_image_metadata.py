"""Metadata that are damaged or too large: the pixels are read as they are stored."""

import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from pictures import (
    encode,
    noise,
    png_chunk,
    tiff_with_tag,
    with_chunk,
    with_riff_chunks,
    with_segment,
)
from PIL import Image, ImageCms
from rich.console import Console

from dslo_jax.cli.terminal import told
from dslo_jax.errors import ImageError
from dslo_jax.images import read_photo
from dslo_jax.images.metadata import with_less_metadata


PIXELS = noise(24, 32)
PNG = encode(PIXELS, "PNG")
JPEG = encode(PIXELS, "JPEG")
WEBP = encode(PIXELS, "WEBP", lossless=True)
TIFF = encode(PIXELS, "TIFF")
TURN = 0x0112
GARBAGE = b"\0\x08\0\x02\1\x12\0\3"
BOMB = zlib.compress(b"x" * 2_000_000)
LARGE_PROFILE = zlib.compress(bytes(3_000_000))


def turning(order="<", value=6, resolution=b""):
    """EXIF with an orientation, and a resolution that may be nonsense."""
    marks = b"II*\0" if order == "<" else b"MM\0*"
    entries = [struct.pack(order + "HHIHxx", TURN, 3, 1, value)]
    if resolution:
        entries.append(resolution)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries)
    return marks + struct.pack(order + "I", 8) + directory + bytes(4)


PNG_FAULTS = {
    "zTXt of 2 MB": (png_chunk(b"zTXt", b"prompt\0\0" + BOMB), b"IDAT"),
    "iTXt of 2 MB": (png_chunk(b"iTXt", b"flow\0\1\0\0\0" + BOMB), b"IDAT"),
    "zTXt of 2 MB at the end": (png_chunk(b"zTXt", b"prompt\0\0" + BOMB), b"IEND"),
    "iTXt of 2 MB at the end": (png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB), b"IEND"),
    "zTXt that is no zlib": (png_chunk(b"zTXt", b"prompt\0\0nonsense"), b"IDAT"),
    "zTXt of another method": (png_chunk(b"zTXt", b"prompt\0\7nonsense"), b"IDAT"),
    "empty zTXt": (png_chunk(b"zTXt", b""), b"IEND"),
    "iTXt of no UTF-8": (png_chunk(b"iTXt", b"a\0\0\0\0\0\xff\xfe"), b"IDAT"),
    "iTXt that ends early": (png_chunk(b"iTXt", b"a"), b"IEND"),
    "100 texts of 1 MB": (
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 100,
        b"IDAT",
    ),
    "wrong sum of tEXt": (png_chunk(b"tEXt", b"a\0b", checksum=1), b"IDAT"),
    "wrong sum of tEXt at the end": (png_chunk(b"tEXt", b"a\0b", checksum=1), b"IEND"),
    "wrong sum of pHYs": (png_chunk(b"pHYs", bytes(9), checksum=1), b"IDAT"),
    "short pHYs": (png_chunk(b"pHYs", b"\0"), b"IDAT"),
    "short gAMA": (png_chunk(b"gAMA", b"\0"), b"IDAT"),
    "short cHRM": (png_chunk(b"cHRM", b"\0"), b"IDAT"),
    "empty sRGB": (png_chunk(b"sRGB", b""), b"IDAT"),
    "eXIf garbage": (png_chunk(b"eXIf", GARBAGE), b"IDAT"),
    "eXIf garbage at the end": (png_chunk(b"eXIf", GARBAGE), b"IEND"),
    "empty eXIf": (png_chunk(b"eXIf", b""), b"IDAT"),
    "wrong sum of eXIf": (png_chunk(b"eXIf", turning(), checksum=1), b"IDAT"),
    "profile of 3 MB": (png_chunk(b"iCCP", b"a\0\0" + LARGE_PROFILE), b"IDAT"),
    "profile that is no zlib": (png_chunk(b"iCCP", b"a\0\0nonsense"), b"IDAT"),
    "profile without end": (png_chunk(b"iCCP", b"nonsense"), b"IDAT"),
    "profile garbage": (
        png_chunk(b"iCCP", b"a\0\0" + zlib.compress(b"nonsense")),
        b"IDAT",
    ),
    "short acTL": (png_chunk(b"acTL", b"\0"), b"IDAT"),
    "no frames": (png_chunk(b"acTL", bytes(8)), b"IDAT"),
    "frame of another size": (
        png_chunk(b"acTL", struct.pack(">II", 1, 0))
        + png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 99, 99, 0, 0, 1, 1, 0, 0)),
        b"IDAT",
    ),
    "unknown chunk": (png_chunk(b"abCd", bytes(99)), b"IDAT"),
}


@pytest.mark.parametrize("fault", PNG_FAULTS)
def test_png(fault):
    photo = read_photo(with_chunk(PNG, *PNG_FAULTS[fault]))
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    assert not photo.exif_applied
    assert all("ignored" in note for note in photo.notes)


def test_garbage_after_the_pixels_of_a_png():
    photo = read_photo(PNG[: PNG.index(b"IEND") - 4] + b"\0\0\0\1!!!!")
    np.testing.assert_array_equal(photo.pixels, PIXELS)


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_other_metadata_still_hold(before):
    """A text that is too large does not hide the orientation and the profile."""
    content = with_chunk(PNG, PNG_FAULTS["zTXt of 2 MB"][0], before)
    content = with_chunk(content, png_chunk(b"eXIf", turning()), before)
    photo = read_photo(content)
    np.testing.assert_array_equal(photo.pixels, np.rot90(PIXELS, -1))
    assert photo.notes[0] == "EXIF orientation applied"
    assert photo.notes[-1] == "damaged or too large metadata ignored"
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"gXYZ", b"rXYZ"), (b"????", b"gXYZ")):
        profile = profile.replace(old, new)
    profile = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    content = encode(red, "PNG", icc_profile=profile)
    content = with_chunk(content, PNG_FAULTS["zTXt of 2 MB"][0], before)
    assert np.abs(read_photo(content).pixels.astype(int) - [0, 255, 0]).max() <= 2


JPEG_FAULTS = {
    "EXIF garbage": (0xE1, b"Exif\0\0" + GARBAGE),
    "empty EXIF": (0xE1, b"Exif\0\0"),
    "EXIF that ends early": (0xE1, b"Exif\0\0" + turning()[:13]),
    "EXIF that leads out": (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "orientation 9": (0xE1, b"Exif\0\0" + turning(value=9)),
    "resolution of no number": (
        0xE1,
        b"Exif\0\0"
        + turning(value=1, resolution=struct.pack("<HHII", 0x011A, 5, 0, 8)),
    ),
    "short JFIF": (0xE0, b"JFIF\0"),
    "short Adobe": (0xEE, b"Adobe"),
    "Photoshop garbage": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\xff\xff\xff\xff"),
    "index of pictures garbage": (0xE2, b"MPF\0" + GARBAGE),
    "empty index of pictures": (0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "profile garbage": (0xE2, b"ICC_PROFILE\0\1\1nonsense"),
    "profile with a part missing": (0xE2, b"ICC_PROFILE\0\1\2nonsense"),
    "short profile": (0xE2, b"ICC_PROFILE\0"),
    "XMP garbage": (0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe\0"),
    "comment of no text": (0xFE, bytes(range(256))),
}


@pytest.mark.parametrize("fault", JPEG_FAULTS)
def test_jpeg(fault):
    photo = read_photo(with_segment(JPEG, *JPEG_FAULTS[fault]))
    np.testing.assert_array_equal(photo.pixels, read_photo(JPEG).pixels)
    assert all("ignored" in note for note in photo.notes)


def test_a_broken_segment_of_a_jpeg_does_not_hide_its_orientation():
    content = with_segment(JPEG, 0xE1, b"Exif\0\0" + turning(">"))
    photo = read_photo(with_segment(content, 0xE2, b"MPF\0" + GARBAGE))
    assert photo.exif_applied
    assert photo.pixels.shape == (32, 24, 3)


WEBP_FAULTS = {
    "EXIF garbage": (b"EXIF", GARBAGE),
    "EXIF that leads out": (b"EXIF", b"II*\0\xff\xff\xff\x7f"),
    "profile garbage": (b"ICCP", b"nonsense"),
    "XMP garbage": (b"XMP ", b"\xff\0\xfe"),
    "unknown": (b"what", b"123"),
}


@pytest.mark.parametrize("fault", WEBP_FAULTS)
def test_webp(fault):
    content = with_riff_chunks(WEBP, WEBP_FAULTS[fault])
    cut = with_riff_chunks(WEBP, (b"EXIF", bytes(99)), WEBP_FAULTS[fault])[:-40]
    for each in (content, cut):
        photo = read_photo(each)
        np.testing.assert_array_equal(photo.pixels, PIXELS)
        assert all("ignored" in note for note in photo.notes)


TIFF_FAULTS = {
    "EXIF that leads out": (34665, 4, 1, 0x7FFFFFFF),
    "EXIF in the middle of the pixels": (34665, 4, 1, 10),
    "position that leads out": (34853, 4, 1, 0x7FFFFFFF),
    "text that leads out": (270, 2, 999_999, 0x7FFFFFFF),
    "text of 4 GB": (270, 2, 0xFFFFFFFF, 8),
    "unknown type": (270, 99, 1, 0),
    "resolution that leads out": (282, 5, 1, 0x7FFFFFFF),
    "resolution of no number": (283, 2, 3, 0x00414141),
    "profile that leads out": (34675, 7, 4000, 0x7FFFFFFF),
    "profile garbage": (34675, 7, 40, 8),
    "texts of a program": (34377, 1, 4, 0x01010101),
    "orientation 9": (TURN, 3, 1, 9),
}


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("fault", TIFF_FAULTS)
def test_tiff(fault, compression):
    content = encode(PIXELS, "TIFF", compression=compression)
    photo = read_photo(tiff_with_tag(content, *TIFF_FAULTS[fault]))
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    assert all("ignored" in note for note in photo.notes)


def test_avif_with_broken_exif():
    exif = Image.Exif()
    exif[0x010E] = "a description"
    content = encode(PIXELS, "AVIF", exif=exif)
    assert content.count(b"II*\0") + content.count(b"MM\0*") == 1
    for mark in (b"II*\0", b"MM\0*"):
        content = content.replace(mark, b"????")
    expected = read_photo(encode(PIXELS, "AVIF")).pixels
    np.testing.assert_array_equal(read_photo(content).pixels, expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_pixels_that_are_cut_short_stay_an_error(kind):
    """Also where the metadata are damaged as well."""
    content = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "TIFF": TIFF}[kind]
    broken = {
        "PNG": with_chunk(PNG, *PNG_FAULTS["zTXt of 2 MB"]),
        "JPEG": with_segment(JPEG, *JPEG_FAULTS["EXIF garbage"]),
        "WEBP": with_riff_chunks(WEBP, (b"EXIF", GARBAGE)),
        "TIFF": TIFF,
    }[kind]
    for whole in (content, broken):
        for share in (0.5, 0.8):
            cut = whole[: len(whole) - int(share * len(content))]
            with pytest.raises(ImageError, match="I03"):
                read_photo(cut)


def test_a_flipped_bit_in_the_pixels_of_a_png_stays_an_error():
    place = PNG.index(b"IDAT") + 40
    flipped = PNG[:place] + bytes([PNG[place] ^ 1]) + PNG[place + 1 :]
    with pytest.raises(ImageError, match="I03"):
        read_photo(flipped)


def test_texts_of_a_png_are_not_decompressed_without_limit():
    """What is left out is never decompressed, and the limits of Pillow stay as set."""
    from PIL import ImageFile, PngImagePlugin

    read_photo(with_chunk(PNG, *PNG_FAULTS["100 texts of 1 MB"]))
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK == 1024 * 1024
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF"])
def test_any_bytes_become_no_longer_and_end(kind):
    rng = random.Random(0)
    content = encode(PIXELS, kind)
    for _ in range(300):
        damaged = bytearray(content[: rng.randrange(12, len(content) + 1)])
        for _ in range(rng.randrange(6)):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        for lighter in with_less_metadata(bytes(damaged)):
            assert len(lighter) <= len(damaged)


def test_commands_print_no_warnings_of_pillow():
    """They name no photo; the photo is read, or an error names it."""
    content = with_segment(JPEG, *JPEG_FAULTS["EXIF that leads out"])
    with told(Console()):
        photo = read_photo(content)
        with pytest.raises(UserWarning, match="of others"):
            warnings.warn("of others", stacklevel=1)
    assert photo.notes == ()
