"""A byte-level tokenizer in the file layout of CLIP, for small networks."""

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path


START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(
    folder: Path,
    words: Iterable[str] = (),
    *,
    size: int | None = None,
    pad_token: str = END,
) -> int:
    """Write ``vocab.json``, ``merges.txt`` and their settings.

    Args:
        folder: Created when missing.
        words: Lower-case words that become single tokens.
        size: Length of the vocabulary, filled up with unused entries; the two special
            tokens come last. As short as possible when ``None``.
        pad_token: Token that pads a text.

    Returns:
        The length of the vocabulary.

    Raises:
        ValueError: ``size`` is too small for the bytes, the words and two special
            tokens.
    """
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    merges = _merges(words)
    tokens += ["".join(pair) for pair in merges]
    missing = 0 if size is None else size - len(tokens) - 2
    if missing < 0:
        raise ValueError(f"`size` is {size}, expected {len(tokens) + 2} or more")
    tokens += [f"<|unused{index}|>" for index in range(missing)]
    tokens += [START, END]
    special = {
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad_token,
    }
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77} | special
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(tokens)})
    )
    (folder / "merges.txt").write_text("\n".join(lines))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    return len(tokens)


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of symbols whose merges make each word a single token, in order of rank.

    A pair for one word may also be merged in another word. So each word is first
    encoded with the earlier pairs, and new pairs join the pieces that are left. New
    pairs have lower ranks, so earlier words stay whole.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        first, *others = _pieces([*word[:-1], word[-1] + "</w>"], ranks)
        for other in others:
            ranks.setdefault((first, other), len(ranks))
            first += other
    return list(ranks)


def _pieces(parts: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Encode a word with byte pairs: merge the pair of highest rank, repeatedly."""
    while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
        urgent = min(pairs, key=ranks.__getitem__)
        merged = []
        for part in parts:
            if merged and (merged[-1], part) == urgent:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return parts


def _byte_symbols() -> list[str]:
    """A printable character for each of the 256 bytes, in the order of CLIP.

    Printable bytes of Latin-1 come first and stand for themselves. The others have the
    characters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [
        chr(256 + index) for index in range(len(others))
    ]
