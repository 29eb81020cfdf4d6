"""Bad photos of every kind, and conversions."""

import errno
import os
import struct
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image, ImageCms

from dslo_jax.errors import ImageError
from dslo_jax.images import (
    read_photo,
)


ORIENTATION = 0x0112


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(body))
    pixels = b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + crc + pixels


def refused(source, code, **options):
    with pytest.raises(ImageError) as caught:
        read_photo(source, **options)
    assert caught.value.code == code
    return str(caught.value)


class TestFiles:
    def test_png_is_read_bit_for_bit(self, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(encode(noise(), "PNG"))
        for source in (path, str(path)):
            photo = read_photo(source)
            np.testing.assert_array_equal(photo.pixels, noise())
            assert photo.path == path
            assert (photo.notes, photo.exif_applied) == ((), False)

    @pytest.mark.parametrize(
        "kind", ["BMP", "PPM", "TIFF", "GIF", "WEBP", "JPEG", "AVIF", "JPEG2000"]
    )
    def test_formats(self, kind):
        pixels = np.full((16, 24, 3), (200, 100, 50), np.uint8)
        photo = read_photo(encode(pixels, kind))
        assert photo.pixels.shape == (16, 24, 3)
        assert np.abs(photo.pixels.astype(int) - pixels).max() <= 6
        assert photo.path is None

    def test_missing_names_the_nearest(self, tmp_path):
        (tmp_path / "kitten.jpg").touch()
        message = refused(tmp_path / "kiten.jpg", "I01")
        assert "'kitten.jpg'" in message
        assert os.getcwd() in message

    @pytest.mark.parametrize("path", ["nowhere/at/all.jpg", "a\0b.jpg", "x" * 5000])
    def test_impossible_paths(self, path):
        refused(path, "I01")

    def test_a_file_without_permission(self, tmp_path, monkeypatch):
        def refuse(self, mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

        path = tmp_path / "mine.jpg"
        path.touch()
        monkeypatch.setattr(Path, "open", refuse)
        told = f"cannot open {str(path)!r}: {os.strerror(errno.EACCES)}; correct its"
        assert told in refused(path, "I01")

    def test_folder(self, tmp_path):
        assert "is a folder" in refused(tmp_path, "I01")

    def test_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        assert "is a pipe" in refused(tmp_path / "pipe.jpg", "I01")

    def test_device_does_not_run_on(self):
        assert "is a device" in refused("/dev/zero", "I01")

    def test_link_to_itself(self, tmp_path):
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        refused(tmp_path / "loop.jpg", "I01")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty (0 bytes)"),
            (b"hello", "starts with b'hello'"),
            (b"<!DOCTYPE html><html>", "a web page (starts with b'<!DOCTYPE html>"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        ],
    )
    def test_renamed_to_jpg(self, tmp_path, content, said):
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        assert said in refused(path, "I02")

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
    def test_truncated(self, kind):
        whole = encode(noise(64, 64), kind)
        for share in (0.3, 0.6, 0.9):
            refused(whole[: int(share * len(whole))], "I03")

    def test_truncated_message_counts_bytes(self):
        whole = encode(noise(64, 64), "JPEG")
        assert "not processed" in refused(whole[:2000], "I03")
        assert "12 bytes" in refused(whole[:12], "I03")

    @pytest.mark.parametrize("side", [9_000, 12_000, 30_000])
    def test_too_many_pixels_from_the_header_alone(self, side):
        message = refused(png_header(side, side), "I04")
        assert str(side * side) in message
        assert "64000000" in message

    def test_limit_is_an_option(self):
        assert "48" in refused(encode(noise(), "PNG"), "I04", max_pixels=47)
        read_photo(encode(noise(), "PNG"), max_pixels=48)

    def test_too_small(self):
        assert "1 x 9 px" in refused(encode(noise(1, 9), "PNG"), "I05")
        assert "9 x 1 px" in refused(noise(9, 1), "I05")

    def test_extreme_aspect_is_noted(self):
        assert "extreme aspect" in read_photo(noise(2, 100)).notes[0]


class TestConversions:
    def test_exif_orientation(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # to be turned clockwise
        photo = read_photo(encode(noise(), "PNG", exif=exif))
        np.testing.assert_array_equal(photo.pixels, np.rot90(noise(), -1))
        assert photo.exif_applied
        assert photo.notes == ("EXIF orientation applied",)

    def test_exif_orientation_of_jpeg(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 8
        photo = read_photo(encode(noise(16, 32), "JPEG", exif=exif))
        assert photo.pixels.shape == (32, 16, 3)

    def test_16_bit_grey_is_scaled(self):
        values = np.array([[0, 257, 128], [25700, 65535, 65406]], np.uint16)
        photo = read_photo(encode(values, "PNG"))
        expected = [[0, 1, 0], [100, 255, 254]]
        np.testing.assert_array_equal(photo.pixels[..., 1], expected)
        assert photo.notes[0] == "16-bit scaled to 8 bit"

    def test_16_bit_colour_is_noted(self):
        rows = b"".join(
            b"\0" + struct.pack(">6H", 0, 65535, 0x8040, 1, 2, 3) for _ in range(2)
        )
        body = b"IHDR" + struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
        chunks = b"".join(
            struct.pack(">I", len(b) - 4) + b + struct.pack(">I", zlib.crc32(b))
            for b in (body, b"IDAT" + zlib.compress(rows), b"IEND")
        )
        photo = read_photo(b"\x89PNG\r\n\x1a\n" + chunks)
        np.testing.assert_array_equal(photo.pixels[0, 0], [0, 255, 128])
        assert photo.notes == ("16-bit colour cut to 8 bit",)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.array([[0, 0.5], [1, 0.25]], np.float32), [[0, 128], [255, 64]]),
            (np.array([[-10, 0], [10, 5]], np.float32), [[0, 128], [255, 191]]),
            (np.array([[7, 7], [7, 7]], np.float32), [[0, 0], [0, 0]]),
            (np.array([[0, 65535], [257, 514]], np.int32), [[0, 255], [1, 2]]),
            (np.array([[0, 510000], [255000, 1]], np.int32), [[0, 255], [128, 0]]),
        ],
    )
    def test_deep_images_are_never_clipped(self, values, expected):
        photo = read_photo(encode(values, "TIFF"))
        np.testing.assert_array_equal(photo.pixels[..., 0], expected)
        assert "8 bit" in photo.notes[0]

    def test_nan_in_a_file(self):
        refused(encode(np.full((2, 2), np.nan, np.float32), "TIFF"), "I06")

    def test_alpha_on_white(self):
        rgba = np.zeros((2, 2, 4), np.uint8)
        rgba[0, 0] = 200, 100, 0, 255
        rgba[0, 1] = 200, 100, 0, 0
        rgba[1] = 0, 0, 0, 51
        photo = read_photo(encode(rgba, "PNG"))
        expected = [[(200, 100, 0), (255, 255, 255)], [(204, 204, 204)] * 2]
        np.testing.assert_array_equal(photo.pixels, expected)
        assert photo.notes == ("alpha composited on white",)

    def test_opaque_alpha_needs_no_note(self):
        rgba = np.dstack([noise(), np.full((6, 8), 255, np.uint8)])
        photo = read_photo(encode(rgba, "PNG"))
        np.testing.assert_array_equal(photo.pixels, noise())
        assert photo.notes == ()

    def test_palette_with_transparency(self):
        image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        photo = read_photo(encode(image, "PNG", transparency=1))
        expected = [[(255, 0, 0), (255,) * 3], [(0, 0, 255), (255,) * 3]]
        np.testing.assert_array_equal(photo.pixels, expected)

    def test_grey_with_transparency(self):
        grey = np.array([[[90, 255], [90, 0]]] * 2, np.uint8)
        photo = read_photo(encode(Image.fromarray(grey, "LA"), "PNG"))
        np.testing.assert_array_equal(photo.pixels[0], [(90,) * 3, (255,) * 3])

    def test_grey_equals_grey_thrice(self):
        grey = noise(channels=1)[..., 0]
        photo = read_photo(encode(grey, "PNG"))
        np.testing.assert_array_equal(photo.pixels, np.dstack([grey] * 3))

    def test_black_and_white(self):
        image = Image.fromarray(np.eye(4, dtype=bool))
        photo = read_photo(encode(image, "PNG"))
        np.testing.assert_array_equal(photo.pixels[..., 0], 255 * np.eye(4))

    def test_cmyk_jpeg(self):
        cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
        photo = read_photo(encode(cyan, "JPEG"))
        assert np.abs(photo.pixels.astype(int) - [0, 255, 255]).max() <= 3
        assert photo.notes == ("CMYK without a usable profile converted to RGB",)

    def test_lab(self):
        white = Image.new("LAB", (2, 2), (255, 128, 128))
        photo = read_photo(white)
        assert photo.pixels.min() >= 253
        assert photo.notes == ("LAB converted to sRGB",)

    def test_srgb_profile_changes_nothing(self):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        photo = read_photo(encode(noise(), "PNG", icc_profile=profile))
        np.testing.assert_array_equal(photo.pixels, noise())
        assert photo.notes == ()

    def test_foreign_profile_is_applied(self):
        # A profile whose red and green primaries are exchanged turns red into green.
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for old, new in ((b"rXYZ", b"????"), (b"gXYZ", b"rXYZ"), (b"????", b"gXYZ")):
            profile = profile.replace(old, new)
        name = "sRGB".encode("utf-16-be")
        profile = profile.replace(name, "swap".encode("utf-16-be"))
        red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
        photo = read_photo(encode(red, "PNG", icc_profile=profile))
        assert np.abs(photo.pixels.astype(int) - [0, 255, 0]).max() <= 2
        assert "'swap" in photo.notes[0]

    def test_damaged_profile_is_noted(self):
        photo = read_photo(encode(noise(), "PNG", icc_profile=b"nonsense"))
        np.testing.assert_array_equal(photo.pixels, noise())
        assert "ignored" in photo.notes[0]

    def test_animation_gives_its_first_frame(self):
        frames = [Image.new("RGB", (4, 4), c) for c in ("red", "lime", "blue")]
        content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
        photo = read_photo(content)
        np.testing.assert_array_equal(photo.pixels[0, 0], [255, 0, 0])
        assert "frame 1 of 3" in photo.notes


class TestArrays:
    def test_accepted_forms(self):
        pixels = noise()
        floats = (pixels / 255).astype(np.float32)
        assert read_photo(pixels).notes == ()
        for source in (
            pixels,
            np.asfortranarray(pixels),
            jnp.asarray(pixels),
            Image.fromarray(pixels),
            floats,
            jnp.asarray(floats),
            pixels.transpose(2, 0, 1),
        ):
            np.testing.assert_array_equal(read_photo(source).pixels, pixels)

    def test_grey_and_single_channel(self):
        grey = noise(channels=1)
        expected = np.repeat(grey, 3, axis=2)
        np.testing.assert_array_equal(read_photo(grey).pixels, expected)
        np.testing.assert_array_equal(read_photo(grey[..., 0]).pixels, expected)

    def test_pixels_are_a_copy(self):
        pixels = noise()
        photo = read_photo(pixels)
        pixels[:] = 0
        np.testing.assert_array_equal(photo.pixels, noise())
        photo.pixels[0] = 0  # owned and writable

    def test_read_only_input(self):
        pixels = noise()
        pixels.flags.writeable = False
        read_photo(pixels)

    def test_torch_tensor_is_detached(self):
        torch = pytest.importorskip("torch")
        tensor = torch.tensor(noise() / 255, requires_grad=True)
        photo = read_photo(tensor)
        np.testing.assert_array_equal(photo.pixels, noise())
        assert photo.notes[0] == "detached from its gradient"

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.zeros((4, 6, 3), bool), "mask"),
            (np.full((4, 6, 3), np.nan), "NaN"),
            (np.full((4, 6, 3), 200.0), "min 200.0, max 200.0"),
            (np.full((4, 6, 3), -0.1), "[0, 1]"),
            (np.zeros((4, 6, 3), np.int64), "int64"),
            (np.zeros((4, 6, 3), np.uint16), "uint16"),
            (np.zeros((1, 4, 6, 3), np.uint8), "batch axis"),
            (np.zeros((1, 5, 6), np.uint8), "(1, 5, 6)"),
            (np.zeros((3, 6, 3), np.uint8), "first or last"),
            (np.zeros((5, 6, 2), np.uint8), "no axis"),
            (np.zeros((5,), np.uint8), "not an image"),
            (np.zeros((0, 6, 3), np.uint8), "no pixels"),
            (np.zeros((4, 6, 3), complex), "complex"),
            (None, "object"),
            ({"a": 1}, "object"),
            ([[1, 2], [3]], "gives no array"),
        ],
    )
    def test_ambiguous(self, array, said):
        message = refused(array, "I06")
        assert said in message
        assert "accepted: uint8" in message
