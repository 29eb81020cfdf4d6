"""Words on the command line that mean nothing, and the nearest one that does."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is the most like another one, or an empty text."""
    known = list(known)
    near = [each for each in known if word.startswith(each) or each.startswith(word)]
    return next(iter(near or difflib.get_close_matches(word, known, n=1)), "")


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """A question about the nearest known word, behind a blank; or an empty text.

    Args:
        word: The unknown word.
        known: The words that it may have been.
        before: What stands before the word on the command line.
    """
    near = nearest(word, known) if word else ""
    return f" Did you mean {f'{before} {near}'.strip()!r}?" if near else ""
