"""The journal of a run over a folder of photos, which a later run continues."""

import json
import zlib
from pathlib import Path

from images.pictures import encode, noise

from dslo_jax.images import FoundPhoto, find_photos, read_photo
from dslo_jax.prompts import parse_classes
from dslo_jax.runs import PHOTO, Journal, PhotoRun
from dslo_jax.runs.photos import _file
from fuzz.target import Base, Found, Target


HEADER = {"versions": {"jax": "0.10"}, "classes": [["sky"], ["sea"]], "batch_size": 2}
NAMES = ("a.png", "b.png", "c.png")
SHA = read_photo(encode(noise(), "PNG")).sha256
PHOTOS = Path("../photos")  # seen from the folder that ``python -m fuzz`` goes to
FILE = {"path": str(PHOTOS / "a.png"), "size": 1, "time": 1}
RECORDS = (
    [[PHOTO, "a.png", {"done": True, "file": FILE, "sha256": SHA}]],
    [[PHOTO, "b.png", {"error": "[I03] cut short", "file": FILE}]],
    [[PHOTO, "gone.png", {"done": True, "file": {"path": "/x/gone.png"}}]],
)
TOKENS = (
    *(b"\n", b" ", b"\r\n", b"[", b"]", b"{", b"}"),
    *(b'"done":true', b'"error":""', b"null"),
    *(b'"file":{"path":1}', b'"file":[]', b'"photo"', b'"a.png"', b"00000000 ", b"\0"),
    *(b'"../../../x"', b"NaN", b"\xff\xfe", b'"shard":"0/2"', b"[" * 2000, b"9" * 5000),
)  # fmt: skip
found: list[FoundPhoto] = []


def prepare(folder: Path) -> None:
    """Photos, and the results of one of them."""
    for name in NAMES:
        (folder / "photos" / name).parent.mkdir(exist_ok=True)
        (folder / "photos" / name).write_bytes(encode(noise(), "PNG"))
    (folder / "out" / "a.png").mkdir(parents=True)
    (folder / "out" / "a.png" / "labels.png").write_bytes(b"labels")
    found[:] = find_photos(PHOTOS)


def read(content: bytes, folder: Path) -> None:
    """Continue a run, and a second time: what the first one writes must be sound."""
    out = folder / "out"
    (out / "journal.jsonl").write_bytes(content)
    run = PhotoRun(
        found,
        out,
        parse_classes(["sky", "sea"]),
        HEADER,
        write=("labels",),
        batch_size=2,
    )
    journal = run.open_journal()
    done = run.done(journal)
    assert done <= set(NAMES)
    run.failures(journal)
    journal.append({(PHOTO, "c.png"): {"done": True, "file": _file(found[2])}})
    again = Journal(run.journal_path, HEADER)
    assert again.records[PHOTO, "c.png"]["done"]


def sealed(content: bytes) -> bytes:
    """The lines of a journal, each with the checksum that fits it."""
    lines = content.split(b"\n")
    return b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)


def as_lines(content: bytes) -> bytes:
    """A journal of the values of a JSON list, one a line, where it is one."""
    try:
        values = json.loads(content)
        lines = [json.dumps(value, separators=(",", ":")) for value in values]
    except (ValueError, TypeError, RecursionError):
        return sealed(content)
    return sealed("\n".join(lines).encode())


def bases() -> dict[str, Base]:
    """A journal as it is, and two whose lines get checksums when they are damaged."""
    values = [HEADER, *RECORDS]
    lines = b"\n".join(
        json.dumps(each, separators=(",", ":")).encode() for each in values
    )
    return {
        "as it is": Base(sealed(lines)),
        "sums mended": Base(lines, sealed),
        "values exchanged": Base(json.dumps(values).encode(), as_lines, is_json=True),
        "records exchanged": Base(
            json.dumps(RECORDS).encode(), with_header, is_json=True
        ),
    }


def with_header(content: bytes) -> bytes:
    """A journal with a sound header and the records of a JSON list."""
    return sealed(json.dumps(HEADER).encode()) + as_lines(content)


def record(*values: object) -> bytes:
    """A journal with one record."""
    return with_header(json.dumps([[values]]).encode())


def done(**more: object) -> dict[str, object]:
    """What is noted of a photo that has a result."""
    return {"done": True, **more}


INFINITE = json.dumps(HEADER).encode().replace(b"}", b', "x": 1e999}', 1)
FOUND = (
    Found("a right checksum before what is no JSON", sealed(b"{"), "O04"),
    Found("brackets nested too deep", sealed(b"[" * 100_000), "O04"),
    Found("an infinite number", sealed(INFINITE), "O04"),
    Found("a header that is no object", as_lines(b"[[1], []]"), "O04"),
    Found("records that are no lists of three", record(PHOTO, "a.png"), "O04"),
    Found("a record that is no object", record(PHOTO, "a.png", 1), "O04"),
    Found("a name that is no text", record(PHOTO, 1, done()), "O04"),
    Found("a file that is no object", record(PHOTO, "a.png", done(file=[1])), "O04"),
    Found("a file without its path", record(PHOTO, "a.png", done(file={})), "O04"),
    Found("a name that no file can have", record(PHOTO, "x" * 3000, done()), "read"),
)
TARGET = Target(bases(), read, TOKENS, prepare, FOUND)
