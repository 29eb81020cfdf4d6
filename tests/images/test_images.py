"""Bad photos of every kind, conversions, names of results, and resamplers."""

import errno
import os
import struct
import zlib
from pathlib import Path, PurePath

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from pictures import encode, noise
from PIL import Image, ImageCms

from dslo_jax.errors import ImageError
from dslo_jax.images import (
    find_photos,
    read_photo,
    resize_photo,
    short_side_size,
)
from dslo_jax.images.finding import safe_name


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


class TestFinding:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("10.jpg", "2.JPG", "a/1.png", "notes.txt", ".hidden.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(encode(noise(), "PNG"))
        return tmp_path

    def names(self, *args, **options):
        return [photo.name for photo in find_photos(*args, **options)]

    def test_folder_in_natural_order(self, folder):
        assert self.names(folder) == ["2.JPG", "10.jpg"]
        assert self.names([folder], recursive=True) == ["2.JPG", "10.jpg", "a/1.png"]

    def test_named_file_needs_no_suffix(self, folder):
        assert self.names(folder / "notes.txt") == ["notes.txt"]

    def test_globs_mirror_the_path_below_their_fixed_part(self, folder):
        assert self.names(f"{folder}/*") == ["2.JPG", "10.jpg"]
        assert self.names(f"{folder}/*/*.png") == ["a/1.png"]

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("1.jpg", r"there is no file .*did you mean '10.jpg'\?$"),
            ("Cat.jpeg", r"there is no file .*\)$"),  # nothing is near
            ("*.webp", r"nothing matches the pattern '.*\*.webp' \(from "),
            ("*.txt", "no photo found"),
        ],
    )
    def test_nothing_there(self, folder, path, said):
        with pytest.raises(ImageError, match=rf"I01.*{said}"):
            find_photos(folder / path)

    def test_empty_folder_mentions_recursion(self, folder):
        (folder / "a" / "1.png").rename(folder / "a" / "1.txt")
        with pytest.raises(ImageError, match="use --recursive"):
            find_photos(folder / "a")
        with pytest.raises(ImageError, match="no photo found in an empty list"):
            find_photos([])

    def test_same_names_from_two_roots_stay_apart(self, tmp_path):
        for root in ("x", "y", "z"):
            (tmp_path / root).mkdir()
            (tmp_path / root / "a.jpg").touch()
        (tmp_path / "z" / "A~2.jpg").touch()
        names = self.names([tmp_path / root for root in "xyz"])
        assert names == ["a.jpg", "a~2.jpg", "a~3.jpg", "A~2~2.jpg"]

    def test_a_file_reached_twice_is_listed_once(self, folder):
        assert self.names([folder / "2.JPG", folder, f"{folder}/2*"]) == [
            "2.JPG",
            "10.jpg",
        ]

    def test_what_is_not_a_regular_file_is_skipped_with_a_reason(self, folder):
        os.mkfifo(folder / "pipe.jpg")
        (folder / "loop.jpg").symlink_to("loop.jpg")
        (folder / "zero.jpg").symlink_to("/dev/zero")
        (folder / "gone.jpg").symlink_to("nowhere")
        (folder / "a" / "up").symlink_to("..")
        (folder / "linked.jpg").symlink_to("10.jpg")
        skipped = {}
        names = self.names(
            folder,
            recursive=True,
            on_skip=lambda path, reason: skipped.update({path.name: reason}),
        )
        assert names == ["2.JPG", "10.jpg", "a/1.png", "linked.jpg"]
        assert skipped.keys() == {"pipe.jpg", "loop.jpg", "zero.jpg", "gone.jpg", "up"}
        assert skipped["pipe.jpg"] == "a pipe"
        assert skipped["zero.jpg"] == "a device"

    def test_a_named_pipe_is_left_to_the_reader_to_refuse(self, folder):
        os.mkfifo(folder / "pipe.jpg")
        assert self.names(folder / "pipe.jpg") == ["pipe.jpg"]

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("a/b.jpg", "a/b.jpg"),
            ("../../etc/x.jpg", "_/_/etc/x.jpg"),
            ("a\nb\x1b[31m.jpg", "a_b_[31m.jpg"),
            ("\u202egpj.exe", "_gpj.exe"),
            ("bad\udcff.jpg", "bad_.jpg"),
            ('a:b*c?"<>|.jpg', "a_b_c_____.jpg"),
            ("猫.jpg", "猫.jpg"),
        ],
    )
    def test_safe_names(self, path, name):
        assert safe_name(PurePath(path)) == name

    def test_long_names_are_cut_and_stay_apart(self):
        first, second = (
            safe_name(PurePath("猫" * 80 + end)) for end in ("a.jpg", "b.jpg")
        )
        assert first != second
        assert first.endswith(".jpg")
        assert len(first.encode()) <= 200

    @settings(max_examples=200, derandomize=True)
    @given(st.text(min_size=1))
    def test_safe_names_stay_below_any_folder(self, text):
        name = safe_name(PurePath(text))
        resolved = (Path("/out") / name).resolve()
        assert resolved.is_relative_to("/out")
        name.encode()


def two_taps_by_hand(pixels, height, width):
    old_height, old_width = pixels.shape[:2]
    new = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * old_height / height - 0.5, 0), old_height - 1)
            x = min(max((j + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            for row in range(old_height):
                for column in range(old_width):
                    weight = max(1 - abs(y - row), 0) * max(1 - abs(x - column), 0)
                    new[i, j] += weight * pixels[row, column]
    return new


def area_by_hand(pixels, height, width):
    """Mean over a grid fine enough that every cell is a whole number of its pixels."""
    fine = pixels.repeat(height, axis=0).repeat(width, axis=1).astype(float)
    old_height, old_width = pixels.shape[:2]
    return fine.reshape(height, old_height, width, old_width, 3).mean(axis=(1, 3))


class TestResizing:
    @pytest.mark.parametrize("size", [(3, 4), (6, 5), (13, 17), (4, 16), (1, 1)])
    @pytest.mark.parametrize(
        ("method", "oracle"), [("bilinear", two_taps_by_hand), ("area", area_by_hand)]
    )
    def test_equals_the_definition(self, size, method, oracle):
        resized = resize_photo(noise(), size, method=method)
        expected = oracle(noise(), *size)
        # Half a level of rounding, and float32 just beside a half.
        assert np.abs(resized - expected).max() <= 0.5001

    def test_opencv_golden_values(self):
        """Results of ``cv2.resize`` 5.0.0 with ``INTER_AREA``, as constants."""
        row = np.array([0, 100, 50, 255, 10, 30], np.uint8)
        pixels = np.dstack([np.stack([row, 255 - row])] * 3)
        area = resize_photo(pixels, (1, 4), method="area")
        np.testing.assert_array_equal(area[0, :, 0], [128, 128, 128, 128])
        area = resize_photo(pixels[:1].repeat(2, axis=0), (1, 4), method="area")
        np.testing.assert_array_equal(area[0, :, 0], [33, 67, 173, 23])
        area = resize_photo(pixels, (3, 9), method="area")
        golden = [0, 50, 100, 50, 153, 255, 10, 20, 30]  # in fixed point
        assert np.abs(area[0, :, 0].astype(int) - golden).max() <= 1

    def test_pillow_box_is_not_an_area_mean(self):
        image = Image.fromarray(noise(37, 53)).resize((20, 16), Image.Resampling.BOX)
        area = resize_photo(noise(37, 53), (16, 20), method="area").astype(int)
        assert np.abs(np.asarray(image) - area).max() > 20

    def test_antialias_is_pillow(self):
        expected = Image.fromarray(noise()).resize((5, 3), Image.Resampling.BILINEAR)
        resized = resize_photo(noise(), (3, 5))
        np.testing.assert_array_equal(resized, np.asarray(expected))

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 2, st.just(3))),
        st.tuples(*[st.integers(1, 20)] * 2),
        st.sampled_from(["antialias", "bilinear", "area"]),
    )
    def test_stays_within_the_range(self, pixels, size, method):
        resized = resize_photo(pixels, size, method=method)
        assert resized.shape == (*size, 3)
        assert resized.min() >= pixels.min()
        assert resized.max() <= pixels.max()

    @pytest.mark.parametrize("method", ["antialias", "bilinear", "area"])
    def test_constant_stays_constant(self, method):
        for value in (0, 1, 127, 255):
            pixels = np.full((7, 11, 3), value, np.uint8)
            for size in ((3, 5), (20, 4), (50, 70)):
                assert (resize_photo(pixels, size, method=method) == value).all()

    def test_same_size_is_a_copy(self):
        pixels = noise()
        resized = resize_photo(pixels, (6, 8), method="area")
        np.testing.assert_array_equal(resized, pixels)
        assert not np.shares_memory(resized, pixels)

    def test_misuse(self):
        with pytest.raises(ValueError, match="size"):
            resize_photo(noise(), (0, 5))
        with pytest.raises(ValueError, match="1 or more"):
            short_side_size((0, 5), 336, 16)

    @pytest.mark.parametrize(
        ("size", "short_side", "expected"),
        [
            ((375, 500), 336, (336, 448)),
            ((500, 375), 336, (448, 336)),
            ((333, 500), 336, (336, 496)),  # 504.5 px, floored to patches
            ((1024, 2048), 560, (560, 1120)),
            ((100, 5000), 336, (32, 2048)),  # the long side decides
            ((1, 5000), 336, (16, 2048)),  # never below one patch
        ],
    )
    def test_short_side_size(self, size, short_side, expected):
        assert short_side_size(size, short_side, 16) == expected
