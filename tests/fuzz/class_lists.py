"""Class files in all their forms, and class lists as typed on a command line."""

import contextlib
import json
from pathlib import Path

from dslo_jax.errors import ClassListError
from dslo_jax.prompts import read_class_file, split_classes
from fuzz.target import Base, Target


TEXT = '# things\nwall\nsofa|couch\n"table, wooden"\n\nsky\n'
TOKENS = (
    *(b",", b";", b"|", b"\t", b'"', b'""', b"\r\n"),
    *(b"\r", b"\n", b":", b"#", b"[", b"{"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0", b"\x1b[31m"),
    *(b"0: ", b"1 ", b"id,name\n", b"name\n", b"# label:color_rgb:parts:actions\n"),
    *(b"background", b"n01440764 ", b"\xe2\x80\x9c"),
    *(b"\xed\xa0\x80", b"\xc2\xa0", b"- "),
    *("\u2028".encode(), "\u0661".encode(), b"true", b"null", b"\\ud800", b"\\u0000"),
)  # fmt: skip


def read(content: bytes, folder: Path) -> str | None:
    """Read a class file; what is text is also read as the option of a command."""
    path = folder / "classes"
    path.write_bytes(content)
    with contextlib.suppress(UnicodeDecodeError, ClassListError):
        split_classes(content.decode())
    blank = len(content) % 2 == 0
    classes = read_class_file(path, allow_duplicates=blank, allow_blank_lines=blank)
    assert len(classes) > 0
    assert all(name == name.strip() != "" for name in classes.names)
    "".join(classes.names).encode()  # names that cannot be written are refused
    return None


def bases() -> dict[str, Base]:
    """A file of each form."""
    texts = {
        "text": TEXT,
        "ids": "0: wall\n1: sofa\n2: sky\n",
        "header": "id;name;synonym\n0;wall;brick\n1;sofa;couch\n",
        "quoted ids": 'id,name\n"0","wall"\n"1","sofa"\n',
        "CVAT": "# label:color_rgb:parts:actions\nwall:1,2,3::\nsky:4,5,6::\n",
    }
    trees = {
        "names": ["wall", ["sofa", "couch"], "sky"],
        "objects": [{"name": "sofa", "synonyms": ["couch"], "id": 0}, {"name": "sky"}],
        "by label": {"0": "wall", "1": ["sofa", "couch"]},
        "by name": {"wall": 0, "sofa": 1},
    }
    made = {kind: Base(text.encode()) for kind, text in texts.items()}
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        made[encoding] = Base(f"\ufeff{TEXT}".encode(encoding))
    made["sealed UTF-16"] = Base(TEXT.encode(), utf16)
    for kind, tree in trees.items():
        made[f"JSON, {kind}"] = Base(json.dumps(tree).encode(), is_json=True)
    return made


def utf16(content: bytes) -> bytes:
    """The same text in UTF-16, without what is no text."""
    return content.decode("utf-8", "ignore").encode("utf-16", "ignore")


TARGET = Target(bases(), read, TOKENS)
