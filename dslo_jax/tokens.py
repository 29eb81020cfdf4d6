"""Token ids of texts, as CLIP was trained on them.

OpenAI's tokenizer repairs a text before it splits the text into tokens. The tokenizer
of transformers only splits; ``tokenize`` does both.
"""

import html
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftfy
import numpy as np
from jaxtyping import Int

from dslo_jax.errors import CheckpointError, ClassListError, brief


if TYPE_CHECKING:
    from transformers import CLIPTokenizer


_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
_LAYOUTS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep transformers from advising to install PyTorch, which nothing here needs."""
    before = os.environ.get(_ADVICE)
    os.environ[_ADVICE] = "1"
    try:
        yield
    finally:
        del os.environ[_ADVICE]
        if before is not None:
            os.environ[_ADVICE] = before


class LazyTokenizer:
    """A tokenizer that is loaded when it is first used, because that takes a second.

    Args:
        folder: As for ``load_tokenizer``.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The token ids of texts, as the tokenizer of transformers gives them."""
        return self._loaded(*args, **options)

    @property
    def eos_token_id(self) -> Any:
        """Id of the end-of-text token."""
        return self._loaded.eos_token_id

    @cached_property
    def _loaded(self) -> "CLIPTokenizer":
        return load_tokenizer(self._folder)


def load_tokenizer(folder: Path) -> "CLIPTokenizer":
    """Load the tokenizer of a CLIP or Stable Diffusion folder.

    Args:
        folder: A folder with ``tokenizer.json``, or ``vocab.json`` and
            ``merges.txt``. Without further files, texts are padded with the
            end-of-text token.

    Returns:
        The tokenizer of transformers.

    Raises:
        CheckpointError: The files are missing (``W08``) or unreadable (``W04``).
    """
    if not any(all((folder / name).is_file() for name in names) for names in _LAYOUTS):
        raise CheckpointError(
            "W08",
            f"{folder} has no tokenizer. Copy tokenizer.json, or vocab.json and "
            "merges.txt, from where the network comes from into this folder, and "
            f"{' and '.join(_SETTINGS)} if they exist there. All CLIP networks share "
            "one vocabulary: `dslo weights clip-b16` fetches a folder that has it",
        )
    _check_json(folder)
    with _no_advice():
        from transformers import CLIPTokenizer  # here because it takes seconds

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the parsers of the library raise
        raise _unusable(folder, _short_cause(error)) from error
    if "a</w>" not in tokenizer.get_vocab():  # the letter at the end of a word
        raise _unusable(folder, "no byte pairs")
    return tokenizer


def tokenize(
    tokenizer: "CLIPTokenizer", texts: Sequence[str], *, length: int = 77
) -> Int[np.ndarray, "batch tokens"]:
    """Turn texts into token ids.

    Args:
        tokenizer: From ``load_tokenizer``.
        texts: At least one text; each is repaired first (see ``repair``).
        length: Number of tokens in a row, with start- and end-of-text.

    Returns:
        int32 ids [batch, length], padded as the folder of the tokenizer states: CLIP
        repeats the end-of-text token, Stable Diffusion 2 uses "!".

    Raises:
        ClassListError: A text needs more tokens (``C03``).
    """
    repaired = [repair(text) for text in texts]
    encoded = tokenizer(
        [text.lower() for text in repaired],
        padding="max_length",
        max_length=length,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    for text, ids, spans in zip(
        repaired, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        if len(ids) > length:
            first_lost = spans[length - 1][0]
            raise ClassListError(
                "C03",
                f"{brief(text)} needs {len(ids)} tokens, the network reads {length}; "
                f"{brief(text[first_lost:])} would be lost, shorten the name",
            )
    return np.asarray(encoded["input_ids"], np.int32)


def repair(text: str) -> str:
    """Repair a text as OpenAI's tokenizer does before it splits the text.

    Typographic quotes become plain ones, wrongly decoded text is decoded again, HTML
    entities become characters (twice, because they are often escaped twice), and white
    space becomes single spaces. Without this, a name with a typographic apostrophe has
    tokens that CLIP has not seen in training.

    Args:
        text: A prompt, as a person typed it.

    Returns:
        The repaired text; its case is unchanged.
    """
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split())


def _check_json(folder: Path) -> None:
    """Refuse files that are not JSON; the error of transformers does not name them."""
    for name in (*_LAYOUTS[0], _LAYOUTS[1][0], *_SETTINGS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                "W04", f"{path} is damaged: it is not JSON; copy it again"
            ) from error
        if not isinstance(content, dict):
            raise CheckpointError(
                "W04", f"{path} is damaged: it is not a JSON object; copy it again"
            )


def _unusable(folder: Path, cause: str) -> CheckpointError:
    return CheckpointError(
        "W04",
        f"the tokenizer in {folder} is damaged, or not that of a CLIP ({cause}); copy "
        "its files again",
    )


def _short_cause(error: Exception) -> str:
    """Reason why a tokenizer could not be loaded, without the advice of transformers.

    The parsers of files raise plain exceptions, whose text gives the reason. The errors
    of transformers itself are about connections and repositories, which are not used.
    """
    if type(error) is Exception:
        return str(error).splitlines()[0]
    return type(error).__name__
