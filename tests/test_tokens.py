"""Token ids of texts: OpenAI's algorithm, and the files of a tokenizer."""

import html
import itertools
import json
import shutil
import unicodedata

import ftfy
import numpy as np
import pytest
import regex
from checkpoints.clip import EOS, VOCAB_SIZE, save_tokenizer

from dslo_jax.errors import CheckpointError, ClassListError
from dslo_jax.tokens import load_tokenizer, repair, tokenize


BOS = VOCAB_SIZE - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


# ---------------------------------------------------------------- texts


def test_golden_ids(tokenizer):
    """In this vocabulary: photo 515, of</w> 516, the</w> 518, cat</w> 520."""
    found = tokenize(tokenizer, ["A photo  of the Cat.", "", "é"], length=8)
    letter, stop = 320, 269
    assert found.dtype == np.int32
    assert found.tolist() == [
        [BOS, letter, 515, 516, 518, 520, stop, EOS],
        [BOS, EOS, EOS, EOS, EOS, EOS, EOS, EOS],
        [BOS, 127, 358, EOS, EOS, EOS, EOS, EOS],
    ]


class OpenAI:
    """The tokenizer of CLIP's paper, written down from its description."""

    words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")

    def __init__(self, folder):
        self.ids = json.loads((folder / "vocab.json").read_text())
        lines = (folder / "merges.txt").read_text().splitlines()[1:]
        self.ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
        self.symbols = list(self.ids)[:256]
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [byte for byte in range(256) if byte not in printable]
        self.places = {byte: place for place, byte in enumerate(printable + rest)}

    def __call__(self, text):
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        text = regex.sub(r"\s+", " ", text).strip().lower()
        return [piece for word in self.words.findall(text) for piece in self.of(word)]

    def of(self, word):
        parts = [self.symbols[self.places[byte]] for byte in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = itertools.pairwise(parts)
            best = min(pairs, key=lambda pair: self.ranks.get(pair, 1e9))
            if best not in self.ranks:
                break
            merged = []
            for part in parts:
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                else:
                    merged.append(part)
            parts = merged
        return [self.ids[part] for part in parts]


TEXTS = [
    "men's shoe",
    "men’s shoe",
    "MEN’S “Shoe”…",
    "dogâ€™s bowl",  # UTF-8 that was read as Windows-1252
    "schÃ¶n",
    "AT&amp;T",
    "R&amp;amp;D &lt;b&gt;cat&lt;/b&gt;",
    "<b>wall</b>",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE} cafe\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LIGATURE FI}re",
    "ΟΔΟΣ",  # the last letter has its own lower case
    "İstanbul",
    "５ ｃａｔｓ",
    "dog\N{NO-BREAK SPACE}\t \n cat",
    "&nbsp;",
    "",
    "🐶 كلب 日本語",
    "it’ll  they’re I’M don’t we’ve he’d",
    "1234 x² ½",
    "wall-to-wall, the dog’s... photo?!",
]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_openai(tokenizer, folder, text):
    expected = OpenAI(folder)(text)
    (found,) = tokenize(tokenizer, [text], length=len(expected) + 3)
    assert found.tolist() == [BOS, *expected, EOS, EOS]


def test_random_texts_have_the_ids_of_openai(tokenizer, folder):
    random = np.random.default_rng(0)
    letters = [chr(code) for code in (*range(32, 127), *range(0xA1, 0x250))]
    letters += ["’s", "&amp;", "â€™", "Ã©", " ", "the", "cat", "Ω", "я", "日", "🐶"]
    texts = ["".join(random.choice(letters, 12)) for _ in range(300)]
    openai = OpenAI(folder)
    for text, found in zip(texts, tokenize(tokenizer, texts, length=128), strict=True):
        expected = openai(text)
        assert found[1 : len(expected) + 2].tolist() == [*expected, EOS], text


def test_repair_keeps_the_case_and_what_is_right():
    for text in ("a photo of a Cat.", "naïve café", "🐶", "ΟΔΟΣ", "a {} b"):
        assert repair(text) == unicodedata.normalize("NFC", text)
    assert repair("  Men’s \n shoe ") == "Men's shoe"


def test_too_long_a_name(tokenizer):
    text = "a photo of " + "cat " * 3 + "and the Dog"
    assert len(tokenizer(text)["input_ids"]) == 13
    assert tokenize(tokenizer, [text], length=13)[0, -1] == EOS
    with pytest.raises(ClassListError) as error:
        tokenize(tokenizer, ["cat", text], length=12)
    assert error.value.code == "C03"
    assert "needs 13 tokens, the network reads 12; 'Dog' would be lost" in str(
        error.value
    )


# ---------------------------------------------------------------- files


def test_padding_is_the_folders(tmp_path):
    """Stable Diffusion 2 pads with "!", whose id is 0, and attends to the padding."""
    save_tokenizer(tmp_path, pad_token="!")
    found = tokenize(load_tokenizer(tmp_path), [""], length=77)
    assert found.tolist() == [[BOS, EOS, *[0] * 75]]


def test_saved_again_by_transformers(tokenizer, tmp_path):
    """Newer folders hold tokenizer.json alone."""
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "merges.txt").exists()
    texts = ["a photo of the cat", "chien 🐶"]
    np.testing.assert_array_equal(
        tokenize(load_tokenizer(tmp_path), texts), tokenize(tokenizer, texts)
    )


@pytest.mark.parametrize(
    "names", [("vocab.json", "merges.txt"), ("tokenizer.json",)], ids=len
)
def test_settings_may_be_missing(tokenizer, folder, tmp_path, names):
    """Then CLIP's own hold: the end of text is the padding."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "saved" / "tokenizer.json", tmp_path)
    for path in tmp_path.iterdir():
        if path.is_file() and path.name not in names:
            path.unlink()
    # What else lies there does not matter.
    (tmp_path / "config.json").write_text("{")
    texts = ["a photo of the cat", ""]
    np.testing.assert_array_equal(
        tokenize(load_tokenizer(tmp_path), texts), tokenize(tokenizer, texts)
    )


@pytest.mark.parametrize("present", [(), ("vocab.json",), ("merges.txt",)])
def test_missing_files_and_both_remedies_are_named(tmp_path, present):
    for name in present:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError) as error:
        load_tokenizer(tmp_path)
    assert error.value.code == "W08"
    for words in (
        f"{tmp_path} has no tokenizer",
        "Copy tokenizer.json, or vocab.json and merges.txt",
        "`dslo weights clip-b16`",
    ):
        assert words in str(error.value)


def spoiled(name, content):
    def spoil(folder):
        (folder / name).write_text(content)

    return spoil


def foreign(folder):
    """The words of another kind of network, with CLIP's special ones."""
    load_tokenizer(folder).save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = {"cat": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "cat"}
    (folder / "tokenizer.json").write_text(json.dumps({**content, "model": words}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoiled("tokenizer.json", "{"), "tokenizer.json is damaged: it is not JSON"),
        (spoiled("vocab.json", ""), "vocab.json is damaged: it is not JSON"),
        (spoiled("vocab.json", "[]"), "vocab.json is damaged: it is not a JSON object"),
        (spoiled("tokenizer_config.json", "[]"), "config.json is damaged: .* object"),
        (spoiled("special_tokens_map.json", "<!DOCTYPE"), "map.json is damaged"),
        (spoiled("vocab.json", "{}"), r"or not that of a CLIP \(.* out of vocabulary"),
        (spoiled("merges.txt", "a\n"), "or not that of a CLIP"),
        (foreign, r"or not that of a CLIP \(no byte pairs\)"),
    ],
)
def test_damaged_files(folder, tmp_path, spoil, words):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=words) as error:
        load_tokenizer(tmp_path)
    assert error.value.code == "W04"
    for advice in ("huggingface.co", "internet", "repo", "connection"):
        assert advice not in str(error.value).lower()
