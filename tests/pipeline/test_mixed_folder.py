"""A folder of all kinds of photos, good and broken, through runs that are killed."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image


GOOD, KILLS = 120, 6
SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif")


def encoded(kind, size=(200, 150)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def huge():
    """A PNG whose header claims 3.6 gigapixels."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def not_finite():
    file = io.BytesIO()
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(file, "TIFF")
    return file.getvalue()


BROKEN = {
    "empty.jpg": (b"", "I02"),
    "page.jpg": (b"<!DOCTYPE html><html>", "I02"),
    "text.png": (b"hello", "I02"),
    "cut.jpg": (encoded("JPEG")[:900], "I03"),
    "cut.png": (encoded("PNG")[:5000], "I03"),
    "cut.gif": (encoded("GIF")[:3000], "I03"),
    "cut.webp": (encoded("WEBP")[:3000], "I03"),
    "one.png": (encoded("PNG", (1, 1)), "I05"),
    "huge.png": (huge(), "I04"),
    "noise.png": (b"\x07" * 5000, "I02"),
    "svg.png": (b'<?xml version="1.0"?><svg/>', "I02"),
    "nan.tif": (not_finite(), "I06"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "I02"),
    "archive.jpg": (b"PK\x03\x04" + b"\x01" * 200, "I02"),
    "paper.png": (b"%PDF-1.4 " + b"\x01" * 200, "I02"),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for index in range(GOOD):
        inside = folder / f"part {index % 7}"
        inside.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(60, 240, 2)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels)
        image.save(inside / f"{index}{SUFFIXES[index % len(SUFFIXES)]}")
    for place in (folder / "part 3", folder / "broken"):
        place.mkdir(exist_ok=True)
        for name, (content, _) in BROKEN.items():
            (place / name).write_bytes(content)
    return folder


def start(folder, out):
    command = [
        *(sys.executable, "-m", "dslo_jax", "segment", folder, "--recursive"),
        *("--model", "demo", "--classes", "sky, sea", "--batch", "8", "--out", out),
    ]
    environment = os.environ | {"DSLO_CACHE": str(folder.parent / "cache")}
    null = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=null, stderr=null)


def contents(out):
    """All files of the results; the times in the JSON are left out."""
    found = {}
    for path in out.rglob("*"):
        if path.is_file() and path.parent != out:
            content = path.read_bytes()
            if path.suffix == ".json":
                content = json.loads(content) | {"timings": None}
            found[str(path.relative_to(out))] = content
    return found


@pytest.mark.slow
def test_every_photo_has_its_result_or_its_reason_whatever_is_killed(folder, tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert start(folder, calm).wait() == 6
    rng = random.Random(0)
    for _ in range(KILLS):
        process = start(folder, killed)
        try:
            process.wait(timeout=5 + rng.expovariate(1 / 3))
            break  # it has finished
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(folder, killed).wait() == 6
    for out in (calm, killed):
        report = json.loads((out / "run.json").read_text())
        assert (report["status"], report["done"]) == ("partial", GOOD)
        reasons = {p["name"]: p["error"] for p in report["photos"] if "error" in p}
        for place in ("part 3", "broken"):
            for name, (_, code) in BROKEN.items():
                assert f"[{code}]" in reasons.pop(f"{place}/{name}")
        assert reasons == {}
    assert contents(calm) == contents(killed)
    hidden = [path for path in killed.rglob(".*") if path.name != ".lock"]
    assert hidden == []
