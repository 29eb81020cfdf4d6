"""Configuration files of TOML."""

from pathlib import Path

from dslo_jax.config import SegmenterConfig
from fuzz.target import Base, Found, Target


TOKENS = (
    *(b"[", b"]", b"[[", b"{", b"}", b"=", b"."),
    *(b",", b'"', b'"""', b"'''", b"\n", b"#"),
    *(b"inf", b"nan", b"-inf", b"true", b"1e400", b"0x7fffffffffffffffff", b"9" * 5000),
    *(b"1979-05-27T07:32:00Z", b"07:32:00", b"[" * 2000, b"a = {" * 500, b"a." * 2000),
    *(b"mode = ", b"threshold = ", b"epsilon = ", b"affinity_size = ", b"templates = "),
    *(b"affinity_layers = ", b'"up0" = 0.5'),
    *(b"[solver]\n", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"\\ud800", b"\\U0010ffff", b"\\u0000", b"\0", b"\x1b", b"__class__ = ", b"''"),
)  # fmt: skip


def toml() -> str:
    """Every option with its default, as far as TOML can say it."""
    lines = []
    for name, value in SegmenterConfig().flat.items():
        if isinstance(value, bool):
            lines.append(f"{name} = {str(value).lower()}")
        elif isinstance(value, int | float):
            lines.append(f"{name} = {value}")
        elif isinstance(value, str):
            lines.append(f'{name} = "{value}"')
    return "\n".join(lines) + "\n"


def read(content: bytes, folder: Path) -> None:
    """Read a configuration; its options must make the same configuration again."""
    path = folder / "config.toml"
    path.write_bytes(content)
    config = SegmenterConfig.from_toml(path)
    assert SegmenterConfig.of(**config.flat) == config
    hash(config)


def bases() -> dict[str, Base]:
    """A file with all options, a short one, and one with lists."""
    every = toml()
    short = 'mode = "path"\nepsilon = 0.05  # smooth\n\naffinity_size = 512\n'
    lists = 'templates = ["a {}.", "the {}."]\naffinity_layers = ["up0", "up1"]\n'
    return {
        "all options": Base(every.encode()),
        "short": Base(short.encode()),
        "lists": Base(lists.encode()),
        "UTF-16": Base(short.encode("utf-16")),
        "Windows": Base(b"\xef\xbb\xbf" + short.replace("\n", "\r\n").encode()),
    }


FOUND = (
    Found("a number of thousands of digits", b"epsilon = " + b"9" * 5000, "O04"),
    Found("a key of thousands of parts", b"a." * 100_000 + b"b = 1", "O04"),
    Found("brackets nested too deep", b"templates = " + b"[" * 100_000, "O04"),
)
TARGET = Target(bases(), read, TOKENS, found=FOUND)
