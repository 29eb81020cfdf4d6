"""Small sound pictures of every kind, as bytes."""

import io
import struct
import zlib

import numpy as np
from images.pictures import encode, noise, png
from PIL import Image, ImageCms

from fuzz.target import Base


HEIGHT, WIDTH = 12, 16
TOKENS = (
    *(b"\xff\xd8\xff\xe1", b"\xff\xda", b"\xff\xc2"),
    *(b"\xff\xc4", b"\xff\xd9", b"\xff\xee"),
    *(b"Exif\0\0II*\0", b"Exif\0\0MM\0*", b"ICC_PROFILE\0\1\1", b"Adobe\0d", b"MPF\0"),
    *(b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"iCCP"),
    *(b"zTXt", b"iTXt", b"IEND", b"gAMA", b"sRGB"),
    *(b"\0\0\0\0IDAT", b"\xff\xff\xff\xffIDAT"),
    *(b"RIFF", b"WEBPVP8X", b"VP8 ", b"VP8L"),
    *(b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP"),
    *(b"GIF89a", b"!\xf9\x04", b",\0\0\0\0", b"!\xff\x0bNETSCAPE2.0", b"BM", b"II*\0"),
    *(b"ftypavif", b"ftypheic", b"meta", b"iprp"),
    *(b"ipco", b"ispe", b"colrprof", b"infe"),
    *(b"jP  \r\n\x87\n", b"jp2c", b"\xff\x4f\xff\x51"),
    *(b"\xff\x52", b"\xff\x90", b"P6 ", b"PF\n"),
)  # fmt: skip


def tiny() -> Image.Image:
    """A picture in colour."""
    return Image.fromarray(noise(HEIGHT, WIDTH))


def with_sums(content: bytes) -> bytes:
    """A PNG whose checksums fit its chunks, as far as it has chunks."""
    changed, end = bytearray(content), 8
    while end + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, end)
        following = end + 12 + length
        if following > len(content):
            break
        checksum = zlib.crc32(content[end + 4 : following - 4])
        struct.pack_into(">I", changed, following - 4, checksum)
        end = following
    return bytes(changed)


def photos() -> dict[str, Base]:
    """A photo of every format that is read, and of the rarer kinds of each."""
    image, grey = tiny(), tiny().convert("L")
    frames = [Image.fromarray(noise(HEIGHT, WIDTH, seed=seed)) for seed in (1, 2)]
    many = {"save_all": True, "append_images": frames}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    deep = Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)
    described = {"exif": exif, "icc_profile": profile}
    files = {
        "JPEG": encode(image, "JPEG", quality=50, **described),
        "progressive JPEG": encode(image, "JPEG", progressive=True),
        "CMYK JPEG": encode(image.convert("CMYK"), "JPEG"),
        "MPO": encode(image, "MPO", **many),
        "PNG": encode(image, "PNG", **described),
        "palette PNG": encode(image.quantize(16), "PNG", transparency=3),
        "16-bit grey PNG": encode(deep, "PNG"),
        "16-bit colour PNG": png([range(i, i + 96) for i in range(12)], 16, 2),
        "interlaced PNG": interlaced(),
        "APNG": encode(image, "PNG", **many),
        "GIF": encode(image, "GIF", **many),
        "TIFF": encode(image, "TIFF", exif=exif, **many),
        "LZW TIFF": encode(image, "TIFF", compression="tiff_lzw", icc_profile=profile),
        "JPEG in TIFF": encode(image, "TIFF", compression="jpeg"),
        "fax TIFF": encode(grey.convert("1"), "TIFF", compression="group4"),
        "16-bit TIFF": encode(deep, "TIFF"),
        "float TIFF": encode(grey.convert("F"), "TIFF"),
        "LAB TIFF": encode(ImageCms.profileToProfile(image, *profiles()), "TIFF"),
        "BigTIFF": encode(image, "TIFF", big_tiff=True),
        "WebP": encode(image, "WEBP", exif=exif.tobytes(), icc_profile=profile),
        "lossless WebP": encode(image, "WEBP", lossless=True),
        "animated WebP": encode(image, "WEBP", **many),
        "AVIF": encode(image, "AVIF", exif=exif.tobytes(), speed=10),
        "animated AVIF": encode(image, "AVIF", speed=10, **many),
        "JPEG 2000": encode(image, "JPEG2000"),
        "BMP": encode(image, "BMP"),
        "palette BMP": encode(image.quantize(16), "BMP"),
        "PPM": encode(image, "PPM"),
        "PFM": encode(grey.convert("F"), "PPM"),
        "PBM": encode(grey.convert("1"), "PPM"),
    }
    files["codestream of JPEG 2000"] = files["JPEG 2000"][
        files["JPEG 2000"].index(b"\xff\x4f\xff\x51") :
    ]
    if content := heic(image):
        files["HEIC"] = content
    bases = {kind: Base(content) for kind, content in files.items()}
    return bases | {
        f"{kind}, sums mended": Base(content, with_sums)
        for kind, content in files.items()
        if "PNG" in kind
    }


def masks() -> dict[str, Base]:
    """Label maps in every form that is read."""
    ids = noise(HEIGHT, WIDTH, 1)[..., 0] % 4
    grey, palette = Image.fromarray(ids), Image.fromarray(ids)
    palette.putpalette(bytes(range(12)))
    files = {
        "grey PNG": encode(grey, "PNG"),
        "palette PNG": encode(palette, "PNG", bits=2),
        "2-bit PNG": png([b"\x1b\xe4"] * 4, 2, 0),
        "16-bit PNG": encode(Image.fromarray(ids.astype(np.uint16) * 300), "PNG"),
        "PNG with alpha": encode(opaque(grey), "PNG"),
        "BMP": encode(grey, "BMP"),
        "palette BMP": encode(palette, "BMP"),
        "TIFF": encode(grey, "TIFF"),
        "deflated TIFF": encode(palette, "TIFF", compression="tiff_adobe_deflate"),
    }
    bases = {kind: Base(content) for kind, content in files.items()}
    return bases | {
        f"{kind}, sums mended": Base(content, with_sums)
        for kind, content in files.items()
        if "PNG" in kind
    }


def interlaced() -> bytes:
    """A grey PNG whose rows come in several passes; Pillow writes none."""
    content = png([b"\x10\x20\x30\x40"] * 4, 8, 0)
    changed = bytearray(content)
    changed[28] = 1
    rows = [1, 1, 2, 2, 2, 4, 4]  # bytes of each row of each pass
    pixels = zlib.compress(b"".join(b"\0" + b"\x55" * width for width in rows))
    start = content.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(pixels)) + b"IDAT" + pixels + bytes(4)
    return with_sums(bytes(changed[:start]) + chunk + content[-12:])


def profiles() -> tuple:
    """From sRGB to LAB, as ``profileToProfile`` takes them."""
    made = ImageCms.createProfile
    return made("sRGB"), made("LAB"), ImageCms.Intent.PERCEPTUAL, "LAB"


def opaque(image: Image.Image) -> Image.Image:
    """The same picture with an alpha of 255."""
    image = image.convert("LA")
    image.putalpha(255)
    return image


def heic(image: Image.Image) -> bytes | None:
    """A HEIC photo, where the package for it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return None
    file, made = io.BytesIO(), pillow_heif.HeifFile()
    made.add_from_pillow(image)
    made.save(file)
    return file.getvalue()
