"""Changes of an input. The same seed makes the same changes on every machine."""

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fuzz.target import Base, Target


SIZES = (1, 1, 2, 4, 8)  # bytes of a number
NUMBERS = (0, 1, 2, 3, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS += (2**62, 2**63, 2**64 - 1)
DIGITS = (b"0", b"-1", b"1", b"7", b"65536", b"4294967295", b"9223372036854775808")
DIGITS += (b"1e308", b"1e-320", b"0.5", b"00", b"9" * 400, b"9" * 5000)
TEXTS = ("", " ", "a", "0", "-1", "../../x", "/etc/passwd", "\0", "\ud800", "\u202e")
TEXTS += ("[", "{}", "é" * 50, "x" * 3000, "__class__", "nan", "1e999")
DEEP, LONG = "brackets in brackets", "many digits"  # stand for what json cannot write

Change = Callable[[bytearray, random.Random, Target], None]


def input_of(target: Target, seed: int, number: int) -> tuple[str, bytes]:
    """The kind and the content of an input, from its number alone."""
    rng = random.Random(f"{seed} {number}")
    kind = list(target.bases)[number % len(target.bases)]
    base = target.bases[kind]
    return kind, base.seal(changed(base, target, rng))


def changed(base: Base, target: Target, rng: random.Random) -> bytes:
    """One to three changes of a sound file, now and then many."""
    content = bytearray(base.content)
    if base.is_json and rng.random() < 0.6:
        content = bytearray(with_other_values(base.content, rng))
        if rng.random() < 0.8:
            return bytes(content)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 12))):
        rng.choice(CHANGES)(content, rng, target)
    return bytes(content)


def flip(content: bytearray, rng: random.Random, target: Target) -> None:
    """Change one bit."""
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def write_byte(content: bytearray, rng: random.Random, target: Target) -> None:
    """Put any byte, or one that is in the file already, in the place of another."""
    if content:
        value = rng.choice((rng.randrange(256), rng.choice(content)))
        content[rng.randrange(len(content))] = value


def truncate(content: bytearray, rng: random.Random, target: Target) -> None:
    """Cut off the end; mostly a short one, as more leaves little to be read."""
    length = rng.choice((rng.randrange(1, 9), rng.randrange(len(content) + 1)))
    if rng.random() < 0.5:
        del content[max(0, len(content) - length) :]


def cut_out(content: bytearray, rng: random.Random, target: Target) -> None:
    """Remove some bytes."""
    place, length = _place(content, rng), _length(rng)
    del content[place : place + length]


def insert(content: bytearray, rng: random.Random, target: Target) -> None:
    """Insert random bytes."""
    place = _place(content, rng)
    content[place:place] = rng.randbytes(_length(rng))


def fill(content: bytearray, rng: random.Random, target: Target) -> None:
    """Overwrite some bytes with 0 or 255."""
    place, length = _place(content, rng), _length(rng)
    content[place : place + length] = rng.choice((b"\0", b"\xff")) * length


def repeat(content: bytearray, rng: random.Random, target: Target) -> None:
    """Repeat a block, once or many times, up to some thousand bytes."""
    place, length = _place(content, rng), _length(rng)
    times = rng.choice((1, 1, 2, rng.randrange(1, 4096 // length + 2)))
    content[place:place] = content[place : place + length] * times


def splice(content: bytearray, rng: random.Random, target: Target) -> None:
    """Put a part of a sound file, of this kind or another, over a part of this one."""
    other = target.bases[rng.choice(list(target.bases))].content
    start = rng.randrange(len(other))
    block = other[start : start + rng.choice((4, 16, 64, len(other)))]
    place = rng.choice((_place(content, rng), min(start, len(content))))
    content[place : place + rng.choice((0, len(block)))] = block


def write_number(content: bytearray, rng: random.Random, target: Target) -> None:
    """Change a number of 1 to 8 bytes, as lengths and offsets are: to an edge, or a
    little."""
    size, order = rng.choice(SIZES), rng.choice(("little", "big"))
    if len(content) < size:
        return
    place = rng.randrange(len(content) - size + 1)
    before = int.from_bytes(content[place : place + size], order)
    value = rng.choice((rng.choice(NUMBERS), before + rng.randrange(-9, 10)))
    value %= 256**size
    content[place : place + size] = value.to_bytes(size, order)


def write_digits(content: bytearray, rng: random.Random, target: Target) -> None:
    """Put another number in the place of one that is written in digits."""
    if found := list(re.finditer(rb"-?\d+(\.\d+)?", content)):
        chosen = rng.choice(found)
        content[chosen.start() : chosen.end()] = rng.choice(DIGITS)


def write_token(content: bytearray, rng: random.Random, target: Target) -> None:
    """Put a word of the format somewhere, or over something."""
    if target.tokens:
        token, place = rng.choice(target.tokens), _place(content, rng)
        content[place : place + rng.choice((0, len(token)))] = token


CHANGES: tuple[Change, ...] = (
    *(flip, flip, write_byte, truncate, cut_out, insert, fill, repeat, splice),
    *(write_number, write_number, write_digits, write_token, write_token),
)


def with_other_values(content: bytes, rng: random.Random) -> bytes:
    """JSON in which one to three values or keys are others, missing or moved."""
    tree = [json.loads(content)]  # in a list, so that the whole may be exchanged
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        parent, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del parent[key]
                if not tree:
                    tree.append(None)
            case 1:
                other, place = rng.choice(places)
                parent[key] = json.loads(json.dumps(other[place]))
            case 2 if isinstance(parent, dict):
                parent[rng.choice((*TEXTS, *parent))] = parent.pop(key)
            case 3 if isinstance(parent, list):
                parent.insert(key, parent[key])
            case _:
                parent[key] = _other_value(parent[key], rng)
    text = json.dumps(tree[0], ensure_ascii=rng.random() < 0.7)
    depth = rng.choice((10, 2000, 100_000))
    text = text.replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    text = text.replace(f'"{LONG}"', "1" * rng.choice((200, 400, 5000)))
    return text.encode("utf-8", "surrogatepass")


def _other_value(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool) or value is None or rng.random() < 0.5:
        numbers = (0, 1, -1, 0.5, 1e308, -1e308, 2**63, 10**30, float("nan"))
        others = (None, True, False, [], {}, [[]], {"": None}, float("inf"))
        return rng.choice((*numbers, *others, *TEXTS, DEEP, LONG))
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value - 1, value * 1e10, str(value)))
    if isinstance(value, str):
        return rng.choice(
            (value + rng.choice(TEXTS), value[: len(value) // 2], [value])
        )
    if isinstance(value, list):
        return rng.choice((value[:-1], value * 2, value[::-1], {"0": value}))
    return rng.choice(([value], list(value), list(value.values())))


def _places(tree: Any) -> Iterable[tuple[Any, Any]]:
    """Every value below, as the list or object that holds it and its index or key."""
    keys: Sequence[Any] = range(len(tree)) if isinstance(tree, list) else list(tree)
    for key in keys:
        yield tree, key
        if isinstance(tree[key], list | dict):
            yield from _places(tree[key])


def _place(content: bytearray, rng: random.Random) -> int:
    """A place in the content, or its end; often in the head, where lengths are."""
    most = len(content) + 1
    return rng.randrange(most if rng.random() < 0.7 else min(most, 64))


def _length(rng: random.Random) -> int:
    return rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64)))
