"""What a photo can come from: streams, pages, standard input, addresses, HEIC."""

import hashlib
import io
import os
import sys

import numpy as np
import pytest
from pictures import encode, noise, png_chunk
from PIL import Image

from dslo_jax.errors import ImageError
from dslo_jax.images import find_photos, read_name_list, read_photo


PIXELS = noise(12, 16)
PNG = encode(PIXELS, "PNG")


def refused(source, code, **options):
    with pytest.raises(ImageError) as caught:
        read_photo(source, **options)
    assert caught.value.code == code
    return str(caught.value)


def colours(count):
    return [Image.new("RGB", (8 + 2 * n, 8), (80 * n, 0, 0)) for n in range(count)]


class Stream:
    """A stream that cannot go back, and gives a few bytes at a time."""

    def __init__(self, content):
        self._file = io.BytesIO(content)

    def read(self, size=-1):
        return self._file.read(min(size, 7))


class TestStreams:
    @pytest.mark.parametrize("make", [io.BytesIO, Stream])
    def test_anything_that_can_be_read(self, make):
        photo = read_photo(make(PNG))
        np.testing.assert_array_equal(photo.pixels, PIXELS)
        assert photo.path is None

    def test_from_its_position_on(self):
        file = io.BytesIO(b"before" + PNG)
        file.seek(6)
        np.testing.assert_array_equal(read_photo(file).pixels, PIXELS)

    def test_a_pipe(self):
        reading, writing = os.pipe()
        os.write(writing, PNG)  # fits the buffer of a pipe
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            np.testing.assert_array_equal(read_photo(file).pixels, PIXELS)

    def test_text_is_refused(self):
        assert "open it in binary mode" in refused(io.StringIO("text"), "I06")

    def test_a_stream_that_fails(self):
        closed = io.BytesIO(PNG)
        closed.close()
        assert "closed" in refused(closed, "I01")

    def test_what_never_ends_is_not_read_to_its_end(self):
        class Endless:
            given = 0

            def read(self, size):
                self.given += size
                return (PNG + bytes(size))[:size] if self.given <= 64 else bytes(size)

        endless = Endless()
        assert "bytes, which no image of 1000 pixels" in refused(
            endless, "I04", max_pixels=1000
        )
        assert endless.given < 100_000_000
        zeros = Endless()
        zeros.given = 64
        refused(zeros, "I02")
        assert zeros.given == 128

    def test_bytearray(self):
        np.testing.assert_array_equal(read_photo(bytearray(PNG)).pixels, PIXELS)


class TestFound:
    def test_a_found_photo_is_a_photo_to_read(self, tmp_path):
        (tmp_path / "a.png").write_bytes(PNG)
        (found,) = find_photos(tmp_path)
        np.testing.assert_array_equal(read_photo(found).pixels, PIXELS)
        assert "192" in refused(found, "I04", max_pixels=191)


class TestDigest:
    def test_it_is_that_of_the_file(self, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(PNG)
        expected = hashlib.sha256(PNG).hexdigest()
        for source in (path, PNG, io.BytesIO(PNG)):
            assert read_photo(source).sha256 == expected
        assert find_photos(path)[0].read().sha256 == expected

    def test_what_is_not_encoded_has_none(self):
        assert read_photo(PIXELS).sha256 is None
        assert read_photo(Image.fromarray(PIXELS)).sha256 is None


class TestPages:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("GIF", {"disposal": 1}),
            ("WEBP", {"lossless": True}),
            ("AVIF", {"quality": 100}),
            ("PNG", {}),
        ],
    )
    def test_each_can_be_chosen(self, kind, options):
        first, *others = [image.resize((8, 8)) for image in colours(3)]
        content = encode(first, kind, save_all=True, append_images=others, **options)
        for page in range(3):
            photo = read_photo(content, page=page)
            assert abs(int(photo.pixels[0, 0, 0]) - 80 * page) <= 3
            assert f"frame {page + 1} of 3" in photo.notes
        for page in (3, -1):
            assert "its pages are 0 to 2" in refused(content, "I10", page=page)

    def test_pages_of_different_sizes(self):
        first, *others = colours(3)
        content = encode(first, "TIFF", save_all=True, append_images=others)
        assert read_photo(content, page=2).pixels.shape == (8, 12, 3)
        message = refused(content, "I04", page=2, max_pixels=80)
        assert "8 x 12 = 96" in message
        read_photo(content, page=1, max_pixels=80)

    def test_pages_are_counted_whatever_the_limit(self, scan):
        """A page that is too large is one failure, and hides no other page."""
        large, small = Image.new("1", (9000, 8000)), Image.new("1", (8, 8))
        options = {"save_all": True, "append_images": [small]}
        scan.write_bytes(encode(large, "TIFF", compression="group4", **options))
        first, second = find_photos(f"{scan}#all")
        with pytest.raises(ImageError, match=r"I04.*72000000"):
            first.read()
        assert second.read().pixels.shape == (8, 8, 3)

    def test_a_file_of_one_page(self):
        assert "its only page is 0" in refused(PNG, "I10", page=1)

    def test_arrays_have_no_pages(self):
        with pytest.raises(ValueError, match="for files and bytes alone"):
            read_photo(PIXELS, page=1)

    @pytest.fixture
    def scan(self, tmp_path):
        first, *others = colours(3)
        content = encode(first, "TIFF", save_all=True, append_images=others)
        (tmp_path / "scan.tif").write_bytes(content)
        return tmp_path / "scan.tif"

    def test_by_number_on_the_command_line(self, scan):
        (found,) = find_photos(f"{scan}#2")
        assert found.name == "scan.tif#2"
        assert found.origin == f"{scan}#2"
        assert found.read().pixels.shape == (8, 12, 3)
        (found,) = find_photos(f"{scan}#7")
        with pytest.raises(ImageError, match=r"I10.*scan\.tif' has no page 7"):
            found.read()

    def test_all_pages_of_files_and_patterns(self, scan):
        (scan.parent / "b.png").write_bytes(PNG)
        names = ["scan.tif#0", "scan.tif#1", "scan.tif#2"]
        assert [found.name for found in find_photos(f"{scan}#all")] == names
        pattern = find_photos(f"{scan.parent}/*#all")
        assert [found.name for found in pattern] == ["b.png#0", *names]
        assert [found.read().pixels.shape[1] for found in pattern] == [16, 8, 10, 12]

    def test_a_file_of_that_very_name_comes_first(self, scan):
        (scan.parent / "scan.tif#2").write_bytes(PNG)
        (found,) = find_photos(f"{scan}#2")
        assert found.part is None
        np.testing.assert_array_equal(found.read().pixels, PIXELS)

    def test_all_pages_of_what_cannot_be_read_is_one_failure(self, scan):
        scan.write_bytes(b"II*\0nonsense")
        (found,) = find_photos(f"{scan}#all")
        with pytest.raises(ImageError, match="I03"):
            found.read()

    def test_more_pages_than_the_bytes_can_hold(self, scan):
        """A PNG may claim 2 billion frames in a few bytes."""
        first, *others = colours(2)
        content = encode(
            first.resize((8, 8)),
            "PNG",
            save_all=True,
            append_images=[image.resize((8, 8)) for image in others],
        )
        place = content.index(b"acTL") + 4
        claims = png_chunk(b"acTL", b"\x7f\xff\xff\xff" + bytes(4))
        content = content[: place - 8] + claims + content[place + 12 :]
        (scan.parent / "x.png").write_bytes(content)
        assert len(find_photos(f"{scan.parent / 'x.png'}#all")) == 1


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "https://example.org/cat.jpg",
            "http://example.org/cat.jpg?size=1",
            "s3://bucket/cat.jpg",
            "gs://bucket/cat*.jpg",
            "file:///tmp/cat.jpg",
            "data:image/png;base64," + "A" * 9000,
        ],
    )
    def test_nothing_is_downloaded(self, address):
        for read in (read_photo, find_photos):
            with pytest.raises(ImageError, match=r"I01.*download the photo first") as e:
                read(address)
            assert len(str(e.value)) < 250
        assert "//" in str(e.value) or address.startswith("data:")


def give(monkeypatch, content):
    """Put bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


class TestStandardInput:
    def test_one_image(self, monkeypatch):
        (found,) = find_photos("-")
        give(monkeypatch, PNG)
        photo = found.read()
        assert (found.name, found.origin) == ("stdin", "stdin")
        np.testing.assert_array_equal(photo.pixels, PIXELS)
        assert photo.sha256 == hashlib.sha256(PNG).hexdigest()
        with pytest.raises(ImageError, match=r"I02.*standard input is empty"):
            found.read()

    def test_none(self, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(ImageError, match=r"I01.*standard input"):
            find_photos("-")[0].read()

    def test_a_file_called_so_can_still_be_named(self, tmp_path, monkeypatch):
        (tmp_path / "-").write_bytes(PNG)
        monkeypatch.chdir(tmp_path)
        assert find_photos("./-")[0].part is None


class TestNameLists:
    @pytest.mark.parametrize(
        "content",
        [
            b"a.jpg\nb c.jpg \n",
            b"\xef\xbb\xbfa.jpg\r\nb c.jpg \r\n\r\n",
            b"a.jpg\0b c.jpg \0",
            b"\xef\xbb\xbfa.jpg\0b c.jpg ",
            "a.jpg\r\nb c.jpg ".encode("utf-16"),
            b"\xfe\xff" + "a.jpg\nb c.jpg ".encode("utf-16-be"),
        ],
    )
    def test_every_kind_of_text(self, tmp_path, monkeypatch, content):
        (tmp_path / "list").write_bytes(content)
        assert read_name_list(tmp_path / "list") == ["a.jpg", "b c.jpg "]
        give(monkeypatch, content)
        assert read_name_list("-") == ["a.jpg", "b c.jpg "]

    def test_names_may_hold_any_byte_and_line_breaks(self, tmp_path):
        (tmp_path / "list").write_bytes(b"a\nb\xff\0c\xe2\x80\xa8d")
        assert read_name_list(tmp_path / "list") == ["a\nb\udcff", "c\u2028d"]

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf\r\n"])
    def test_no_name(self, tmp_path, content):
        (tmp_path / "list").write_bytes(content)
        with pytest.raises(ImageError, match=r"I01.*list' names no photo"):
            read_name_list(tmp_path / "list")

    def test_no_file(self, tmp_path):
        with pytest.raises(ImageError, match=r"I01.*there is no file"):
            read_name_list(tmp_path / "list")
        with pytest.raises(ImageError, match=r"I01.*cannot read"):
            read_name_list(tmp_path)


class TestHeic:
    @pytest.fixture
    def heif(self):
        return pytest.importorskip("pillow_heif")

    def heic(self, heif, images, **options):
        file, content = io.BytesIO(), heif.HeifFile()
        for image in images:
            content.add_from_pillow(image)
        content.save(file, **options)
        return file.getvalue()

    def test_a_photo(self, heif):
        content = self.heic(heif, [Image.new("RGB", (40, 30), (200, 100, 50))])
        photo = read_photo(content)
        assert photo.pixels.shape == (30, 40, 3)
        assert np.abs(photo.pixels.astype(int) - [200, 100, 50]).max() <= 4
        assert photo.sha256 == hashlib.sha256(content).hexdigest()
        assert "I04" in refused(content, "I04", max_pixels=1199)
        for share in (0.2, 0.6, 0.9):
            refused(content[: int(share * len(content))], "I03")

    def test_orientation_is_applied_once(self, heif):
        image = Image.fromarray(np.repeat(np.repeat(noise(3, 4), 16, 0), 16, 1))
        exif = Image.Exif()
        exif[0x0112] = 6
        file, content = io.BytesIO(), heif.HeifFile()
        added = content.add_frombytes("RGB", image.size, image.tobytes())
        added.info["exif"] = exif.tobytes()
        content.save(file, quality=100)
        photo = read_photo(file.getvalue())
        assert photo.pixels.shape == (64, 48, 3)
        expected = np.rot90(np.asarray(image), -1).astype(int)
        assert np.abs(photo.pixels - expected).mean() < 12

    def test_the_main_photo_is_page_0(self, heif):
        images = [Image.new("RGB", (64, 64), (80 * n, 0, 0)) for n in range(3)]
        content = self.heic(heif, images, primary_index=1)
        reds = [int(read_photo(content, page=n).pixels[0, 0, 0]) for n in range(3)]
        assert np.abs(np.subtract(reds, [80, 0, 160])).max() <= 4

    def test_broken_exif(self, heif):
        image = Image.new("RGB", (64, 64), (200, 100, 50))
        exif = Image.Exif()
        exif[0x010E] = "a description"
        content = self.heic(heif, [image], exif=exif.tobytes())
        assert b"MM\0*" in content or b"II*\0" in content
        content = content.replace(b"MM\0*", b"????").replace(b"II*\0", b"????")
        assert read_photo(content).pixels.shape == (64, 64, 3)

    def test_without_the_extra_the_remedy_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
        assert 'pip install "dslo-jax[heic]"' in refused(content, "I02")

    def test_pillow_is_not_changed(self, heif):
        read_photo(self.heic(heif, [Image.new("RGB", (64, 64))]))
        assert "HEIF" not in Image.OPEN
