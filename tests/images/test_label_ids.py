"""Masks: the numbers that a file stores, whatever a decoder makes of them."""

import io
import struct

import numpy as np
import pytest
from pictures import encode, png, png_chunk
from PIL import Image

from dslo_jax.errors import ImageError
from dslo_jax.images import read_label_ids


IDS = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)


def read(tmp_path, content):
    path = tmp_path / "mask"
    path.write_bytes(content)
    return read_label_ids(path)


def refused(tmp_path, content, code="I07"):
    with pytest.raises(ImageError) as caught:
        read(tmp_path, content)
    assert caught.value.code == code
    return str(caught.value)


def packed(values, bits):
    """Rows of samples of less than 8 bits."""
    rows = []
    for row in values:
        number = 0
        for value in row:
            number = (number << bits) | int(value)
        rows.append(number.to_bytes(len(row) * bits // 8, "big"))
    return rows


@pytest.mark.parametrize("colour", [0, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_every_depth_of_a_png(tmp_path, bits, colour):
    """Pillow multiplies grey of 2 and 4 bits by 85 and 17."""
    values = np.arange(2 * 8).reshape(2, 8) % 2**bits
    palette = png_chunk(b"PLTE", bytes(range(3 * 16)))
    extra = (palette,) if colour == 3 else ()
    found = read(tmp_path, png(packed(values, bits), bits, colour, *extra))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.uint8


def test_16_bits_of_a_png(tmp_path):
    values = np.array([[0, 1, 255], [256, 300, 65535]], np.uint16)
    found = read(tmp_path, encode(values, "PNG"))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("colour", [0, 3])
def test_transparency_of_one_id_changes_nothing(tmp_path, colour):
    transparent = b"\0\1" if colour == 0 else b"\xff\0\x80"
    extra = [png_chunk(b"PLTE", bytes(range(12)))] if colour == 3 else []
    content = png(list(IDS), 8, colour, *extra, png_chunk(b"tRNS", transparent))
    np.testing.assert_array_equal(read(tmp_path, content), IDS)


def test_colours_of_a_palette_do_not_matter(tmp_path):
    """All entries of one colour; and fewer entries than ids."""
    for entries in (4, 1):
        palette = png_chunk(b"PLTE", bytes([9, 9, 9]) * entries)
        content = png(list(IDS), 8, 3, palette)
        np.testing.assert_array_equal(read(tmp_path, content), IDS)


def test_grey_with_alpha(tmp_path):
    opaque = np.dstack([IDS, np.full_like(IDS, 255)])
    content = encode(Image.fromarray(opaque, "LA"), "PNG")
    np.testing.assert_array_equal(read(tmp_path, content), IDS)
    opaque[0, 0, 1] = 254
    content = encode(Image.fromarray(opaque, "LA"), "PNG")
    assert "transparent pixels" in refused(tmp_path, content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_counted(tmp_path, mode):
    colours = np.stack([IDS * 60, IDS * 0, IDS * 20], axis=2)
    content = encode(Image.fromarray(colours).convert(mode), "PNG")
    assert "holds 4 colours; replace each colour by" in refused(tmp_path, content)
    grey = encode(Image.fromarray(np.dstack([IDS] * 3)).convert(mode), "PNG")
    assert "holds 4 shades of grey in three equal" in refused(tmp_path, grey)
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert "more than 256 colours" in refused(tmp_path, encode(many, "PNG"))


def bmp(rows, bits, palette, header=40):
    """A BMP without compression, from its stored rows, top first."""
    stored = b"".join(row + bytes(-len(row) % 4) for row in reversed(rows))
    width, height = len(rows[0]) * 8 // bits, len(rows)
    if header == 12:
        about = struct.pack("<IHHHH", 12, width, height, 1, bits)
        colours = b"".join(bytes(c) for c in palette)
    else:
        about = struct.pack(
            "<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, len(palette), 0
        )
        colours = b"".join(bytes([*c, 0]) for c in palette)
    start = 14 + len(about) + len(colours)
    size = start + len(stored)
    return b"BM" + struct.pack("<IHHI", size, 0, 0, start) + about + colours + stored


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (0, 0, 255)


@pytest.mark.parametrize("palette", [[BLACK, WHITE], [WHITE, BLACK], [RED, BLACK]])
@pytest.mark.parametrize("header", [40, 12])
def test_a_bmp_of_1_bit(tmp_path, palette, header):
    values = np.array([[0, 1] * 4, [1, 1, 0, 0] * 2])
    found = read(tmp_path, bmp(packed(values, 1), 1, palette, header))
    np.testing.assert_array_equal(found, values)


def test_a_bmp_of_4_and_8_bits(tmp_path):
    colours = [(n, 255 - n, 0) for n in range(16)]
    values = np.arange(16).reshape(2, 8)
    found = read(tmp_path, bmp(packed(values, 4), 4, colours))
    np.testing.assert_array_equal(found, values)
    greys = [(n, n, n) for n in range(256)]
    for palette in (greys, greys[::-1], colours):
        found = read(tmp_path, bmp(packed(values, 8), 8, palette))
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("palette", [[BLACK, WHITE], [(n, n, n) for n in range(16)]])
def test_a_bmp_that_pillow_would_read_wrong_is_refused(tmp_path, palette):
    content = bmp(packed(np.zeros((2, 8), int), 4), 4, palette)
    assert "is a BMP of 4 bits" in refused(tmp_path, content)


def tiff(rows, bits, photometric, **tags):
    """An uncompressed TIFF from its stored rows."""
    width, data = len(rows[0]) * 8 // bits, b"".join(rows)
    entries = {
        256: (3, width),
        257: (3, len(rows)),
        258: (3, bits),
        259: (3, 1),
        262: (3, photometric),
        273: (4, 8),
        277: (3, 1),
        278: (3, len(rows)),
        279: (4, len(data)),
        **{int(tag[1:]): (3, value) for tag, value in tags.items()},
    }
    start = 8 + len(data)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value)
        for tag, (kind, value) in sorted(entries.items())
    )
    return b"II*\0" + struct.pack("<I", start) + data + directory + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_every_depth_of_a_tiff(tmp_path, bits):
    values = np.arange(2 * 8).reshape(2, 8) % 2**bits
    content = tiff(packed(values, bits), bits, 1)
    np.testing.assert_array_equal(read(tmp_path, content), values)
    message = refused(tmp_path, tiff(packed(values, bits), bits, 0))
    assert "0 means white" in message


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_palette_and_16_bits_of_a_tiff(tmp_path, compression):
    image = Image.fromarray(IDS)
    image.putpalette(bytes([9, 9, 9]) * 256)
    content = encode(image, "TIFF", compression=compression)
    np.testing.assert_array_equal(read(tmp_path, content), IDS)
    deep = np.array([[0, 300], [255, 65535]], np.uint16)
    content = encode(deep, "TIFF", compression=compression)
    np.testing.assert_array_equal(read(tmp_path, content), deep)


def test_a_tiff_whose_ids_are_not_clear(tmp_path):
    signed = tiff(packed(IDS, 8), 8, 1, t339=2)
    assert "I07" in refused(tmp_path, signed)
    floats = encode(IDS.astype(np.float32), "TIFF")
    assert "mode F" in refused(tmp_path, floats)
    wide = encode(IDS.astype(np.int32), "TIFF")
    assert "mode I" in refused(tmp_path, wide)
    grey = Image.fromarray(np.zeros((16, 16), np.uint8))
    lossy = encode(grey, "TIFF", compression="jpeg")
    assert "does not keep ids" in refused(tmp_path, lossy)
    pages = encode(grey, "TIFF", save_all=True, append_images=[grey])
    assert "several pages" in refused(tmp_path, pages)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "JPEG2000", "PPM"])
def test_formats_for_pictures_are_refused(tmp_path, kind):
    grey = Image.fromarray(np.zeros((16, 16), np.uint8))
    assert f"is a {kind}, which does not keep" in refused(tmp_path, encode(grey, kind))


def test_metadata_are_no_trouble_and_damage_is_told(tmp_path):
    content = encode(IDS, "PNG")
    place = content.index(b"IDAT") - 4
    text = png_chunk(b"tEXt", b"a\0b", checksum=1)
    found = read(tmp_path, content[:place] + text + content[place:])
    np.testing.assert_array_equal(found, IDS)
    assert "the mask" in refused(tmp_path, content[:-26], "I03")
    refused(tmp_path, b"", "I02")
    (tmp_path / "mask").write_bytes(content)
    with pytest.raises(ImageError, match="I04"):
        read_label_ids(tmp_path / "mask", max_pixels=7)
    with pytest.raises(ImageError, match="I01"):
        read_label_ids(tmp_path / "nowhere.png")


def test_ids_of_a_saved_result_are_those_that_were_saved(tmp_path):
    file = io.BytesIO()
    image = Image.fromarray(IDS)
    image.putpalette(bytes(range(12)))
    image.save(file, "PNG", bits=2, optimize=True)
    np.testing.assert_array_equal(read(tmp_path, file.getvalue()), IDS)
