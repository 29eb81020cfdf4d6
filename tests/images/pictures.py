"""Pictures as bytes, and the parts of their files."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def noise(height=6, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(
        0, 256, (height, width, channels), dtype=np.uint8
    )


def encode(image, kind, **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    # Saving leaves marks on an image, which the next saving stumbles over.
    if "append_images" in options:
        options["append_images"] = [each.copy() for each in options["append_images"]]
    image.copy().save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind, body, checksum=None):
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(rows, depth, colour, *extra):
    """A PNG whose stored rows are given as bytes, 8 bits of samples at a time."""
    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 3: 1, 4: 2}[colour])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            *extra,
            png_chunk(b"IDAT", pixels),
            png_chunk(b"IEND", b""),
        ]
    )


def with_chunk(content, chunk, before=b"IDAT"):
    """A PNG with one more chunk."""
    place = content.index(before) - 4
    return content[:place] + chunk + content[place:]


def with_segment(content, marker, body, length=None):
    """A JPEG with one more segment, right after its start."""
    length = len(body) + 2 if length is None else length
    segment = struct.pack(">BBH", 0xFF, marker, length) + body
    return content[:2] + segment + content[2:]


def with_riff_chunks(content, *chunks):
    """A simple WebP as an extended one, with more chunks at its end."""
    image = Image.open(io.BytesIO(content))
    flags = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
    size = b"".join(struct.pack("<I", side - 1)[:3] for side in image.size)
    flag = sum(flags.get(kind, 0) for kind, _ in chunks)
    extended = b"VP8X" + struct.pack("<IB3x", 10, flag) + size
    body = b"WEBP" + extended + content[12:]
    for kind, data in chunks:
        body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_with_tag(content, number, kind, count, value):
    """A little-endian TIFF of one page with one more entry in its directory."""
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    end = start + 2 + 12 * entries
    directory = (
        struct.pack("<H", entries + 1)
        + content[start + 2 : end]
        + struct.pack("<HHII", number, kind, count, value)
        + struct.pack("<I", 0)
    )
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory
