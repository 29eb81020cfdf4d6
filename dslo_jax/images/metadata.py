"""Image files again with less metadata, for decoders that stumble over metadata.

The pixels, and what says how to read them, are kept byte for byte. Nothing is
decompressed here, and nothing becomes longer.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator


def with_less_metadata(content: bytes) -> Iterator[bytes]:
    """The same image with fewer and fewer metadata.

    First texts and unknown parts are left out, then EXIF as well, then the colour
    profile as well, and at last all that describes an animation.

    Args:
        content: An image file.

    Yields:
        Shorter or equally long files, each different from those before. None for a
        format whose metadata are no trouble.
    """
    for pattern, lighten in _FORMATS:
        if re.match(pattern, content, re.DOTALL):
            before = content
            kept = ["exif", "profile", "frames"]
            for keep in (kept, kept[1:], kept[2:], []):
                lighter = lighten(content, keep)
                if lighter != before:
                    yield lighter
                before = lighter


def _png(content: bytes, keep: list[str]) -> bytes:
    optional = {b"eXIf": "exif", b"iCCP": "profile"}
    optional |= dict.fromkeys((b"acTL", b"fcTL", b"fdAT"), "frames")
    pieces, end = [content[:8]], 8
    while end + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, end)
        following = end + 12 + length
        if following > len(content) or not kind.isalpha():
            break
        (checksum,) = struct.unpack_from(">I", content, following - 4)
        whole = checksum == zlib.crc32(content[end + 4 : following - 4])
        needed = kind[:1].isupper() or (
            whole and (kind == b"tRNS" or optional.get(kind) in keep)
        )
        if needed:
            pieces.append(content[end:following])
        end = following
    return b"".join([*pieces, content[end:]])


def _jpeg(content: bytes, keep: list[str]) -> bytes:
    pieces, end = [content[:2]], 2
    while end + 4 <= len(content):
        mark, kind, length = struct.unpack_from(">BBH", content, end)
        if mark == kind == 0xFF:  # any number of these may come before a marker
            end += 1
            continue
        following = end + 2 + length
        # Markers without a length, such as the start of the scan's data, end the list.
        if mark != 0xFF or kind < 0xC0 or 0xD0 <= kind <= 0xDA:
            break
        if length < 2 or following > len(content):
            break
        if _needed_in_jpeg(kind, content[end + 4 : following], keep):
            pieces.append(content[end:following])
        end = following
    return b"".join([*pieces, content[end:]])


def _needed_in_jpeg(kind: int, body: bytes, keep: list[str]) -> bool:
    if kind == 0xE0 and body.startswith(b"JFIF"):
        return len(body) >= 14
    if kind == 0xEE and body.startswith(b"Adobe"):  # how colours are encoded
        return len(body) >= 12
    if kind == 0xE1 and body.startswith(b"Exif\0\0"):
        return "exif" in keep
    if kind == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
        return "profile" in keep and len(body) >= 14
    return not (0xE0 <= kind <= 0xEF or kind == 0xFE)


def _webp(content: bytes, keep: list[str]) -> bytes:
    optional = {b"EXIF": ("exif", 0x08), b"ICCP": ("profile", 0x20)}
    flags = sum(flag for word, flag in optional.values() if word in keep)
    pixels = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
    pieces, end = [], 12
    while end + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, end)
        chunk = content[end : end + 8 + length + length % 2]
        whole = len(chunk) >= 8 + length
        if kind == b"VP8X" and len(chunk) > 8:
            # The flags of alpha and animation stay; others must match the chunks.
            chunk = chunk[:8] + bytes([chunk[8] & (0x12 | flags)]) + chunk[9:]
        if kind in pixels or (whole and optional.get(kind, ("",))[0] in keep):
            pieces.append(chunk)
        end += len(chunk)
    body = b"".join(pieces)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _tiff(content: bytes, keep: list[str]) -> bytes:
    """Take entries out of the directories; all that they point to stays in place."""
    order = "<" if content[:1] == b"I" else ">"
    big = 43 in content[2:4]
    offset_form, count_form, size = ("Q", "Q", 20) if big else ("I", "H", 12)
    needed = _TIFF_PIXELS | ({34675} if "profile" in keep else set())
    changed, seen, place = bytearray(content), set(), 8 if big else 4
    try:
        while True:
            (start,) = struct.unpack_from(order + offset_form, content, place)
            if start == 0 or start in seen or start > len(content):
                return bytes(changed)
            seen.add(start)
            (count,) = struct.unpack_from(order + count_form, content, start)
            first = start + struct.calcsize(count_form)
            place = first + count * size
            if place > len(content):
                return bytes(changed)
            entries = [content[at : at + size] for at in range(first, place, size)]
            kept = [e for e in entries if _tag(e, order) in needed]
            link = content[place : place + struct.calcsize(offset_form)]
            shorter = struct.pack(order + count_form, len(kept)) + b"".join(kept) + link
            changed[start : start + len(shorter)] = shorter
    except struct.error:  # the file ends within a directory
        return bytes(changed)


# Tags that say where the pixels are and how to read them, and the orientation.
_TIFF_PIXELS = frozenset(
    [
        *(*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317),
        *(320, 322, 323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532),
    ]
)


def _tag(entry: bytes, order: str) -> int:
    return struct.unpack_from(order + "H", entry)[0]


def _boxes(content: bytes, keep: list[str]) -> bytes:
    """Rename items and properties of AVIF and HEIC, so that decoders pass over them."""
    names = [rb"mime", *([] if "exif" in keep else [rb"Exif"])]
    item = rb"(infe(?:\x02.{7}|\x03.{9}))(?:" + b"|".join(names) + b")"
    lighter = re.sub(item, rb"\1skip", content, flags=re.DOTALL)
    if "profile" not in keep:
        lighter = re.sub(rb"colr(prof|rICC)", rb"skip\1", lighter)
    return lighter


_FORMATS: tuple[tuple[bytes, Callable[[bytes, list[str]], bytes]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"\xff\xd8\xff", _jpeg),
    (rb"RIFF....WEBP", _webp),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"....ftyp", _boxes),
)
