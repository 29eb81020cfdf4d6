"""Archives and tables of photos, and lists of their names."""

import io
import tarfile
from pathlib import Path

from images.pictures import encode, noise

from dslo_jax.errors import DsloError
from dslo_jax.images import find_photos, read_name_list
from fuzz.target import Base, Found, Target


MOST = 100_000  # pixels
PICTURE = encode(noise(), "PNG")
TOKENS = (
    *(b"ustar\0", b"ustar  \0", b"\0" * 512, b"../../x.png", b"/etc/x.png", b"0", b"L"),
    *(b"0000000", b"7777777", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"27 path=a.png\n"),
    *(b"PAR1", b"x", b"g", b"1", b"2", b"S", b"GNU.sparse.map=1,2", b"size=99999999"),
)


def tar(form: int) -> bytes:
    """Two photos and something else in an archive."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name in ("a.png", "b" * 120 + ".png", "é.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(PICTURE)
            archive.addfile(member, io.BytesIO(PICTURE))
    return file.getvalue()


def parquet() -> bytes | None:
    """A table of two photos, where the package for it is installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return None
    column = [{"bytes": PICTURE, "path": "a.png"}, {"bytes": None, "path": None}]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": column[:1] * 2}), file)
    return file.getvalue()


def prepare(folder: Path) -> None:
    """A photo that lists may name."""
    (folder / "a.png").write_bytes(PICTURE)


def read(content: bytes, folder: Path) -> str | None:
    """Find the photos of an input and read each; one that is refused stops no other."""
    if content.startswith(b"names\n"):
        path = folder / "list"
        path.write_bytes(content[6:])
        read_name_list(path)
        return None
    path = folder / ("a.parquet" if b"PAR1" in content[:8] + content[-8:] else "a.tar")
    path.write_bytes(content)
    codes = []
    for found in find_photos(path):
        try:
            found.read(max_pixels=MOST)
        except DsloError as error:
            codes.append(error.code)
    return codes[0] if codes else None


def bases() -> dict[str, Base]:
    """An archive of each kind, a table, and lists."""
    made = {"pax": tar(tarfile.PAX_FORMAT), "GNU": tar(tarfile.GNU_FORMAT)}
    made["list"] = b"names\na.png\r\nb/c d.png\n\xe9.png\n"
    made["list of UTF-16"] = b"names\n" + "a.png\nb.png\n".encode("utf-16")
    if table := parquet():
        made["parquet"] = table
    return {kind: Base(content) for kind, content in made.items()}


def claims_much() -> list[Found]:
    """A table whose first page claims 1 GB, as much as pyarrow then took."""
    table = parquet()
    if table is None:
        return []
    # The sizes of the page, 222 and 226 bytes, are written as twice themselves.
    content = table.replace(b"\x15\xbc\x03\x15\xc4\x03", b"\x15\xbc\x03\x15" + GB, 1)
    assert content != table
    return [Found("a page of Parquet that claims a gigabyte", content, "I03")]


GB = b"\x80\x80\x80\x80\x08"
TARGET = Target(bases(), read, TOKENS, prepare, claims_much())
