"""Notes about photos and words that the networks of a small world do not know.

The bundled networks know a drawn world of 20 classes. They give every photo labels, and
on photographs these mean nothing. So a result says which of its words they never met,
and whether the photo is no drawing of their world.
"""

import numpy as np
from jaxtyping import Float

from dslo_jax.config import SegmenterConfig
from dslo_jax.pairs import World
from dslo_jax.pipeline import Batch
from dslo_jax.prompts import ClassList, parse_classes


_NAMED = 10  # the most unknown words that a note lists


def world_notes(world: World, batch: Batch) -> list[tuple[str, ...]]:
    """The notes of each photo about what the networks do not know.

    Args:
        world: What they know.
        batch: The photos, and the classes that were asked for.

    Returns:
        For each photo its notes; none where everything is known.
    """
    words = _word_notes(world, batch.classes)
    notes = []
    for lead in mean_leads(world, batch).tolist():
        is_drawing = lead >= world.least_lead
        notes.append(words if is_drawing else (*words, _foreign_note(world, lead)))
    return notes


def mean_leads(world: World, batch: Batch) -> Float[np.ndarray, " photos"]:
    """How far the best class of a patch is ahead of the second, on average.

    All classes of the world are compared, whatever was asked for: in a drawing, one of
    them fits each patch far better than the others. In a photograph several fit equally
    badly.

    Args:
        world: What the networks know.
        batch: The photos.

    Returns:
        Mean over the patches of the difference of two cosines, 0 ... 2.
    """
    logits = np.asarray(_InWorld(world, batch).logits(world.config), np.float32)
    ascending = np.sort(logits[: len(batch.photos)], axis=1)
    return (ascending[:, -1] - ascending[:, -2]).mean(axis=-1)


class _InWorld(Batch):
    """A batch with all classes of the world, and the features of another batch."""

    def __init__(self, world: World, batch: Batch):
        classes = parse_classes(world.classes)
        size = len(batch.padded)
        super().__init__(batch.networks, batch.photos, classes, size=size)
        self._batch = batch

    def features(self, config: SegmenterConfig):
        """The features of the other batch, which has them already."""
        return self._batch.features(config)


def _foreign_note(world: World, lead: float) -> str:
    return (
        "this is no drawing of the world that these networks know, so its labels mean "
        f"nothing: the best of their words leads by a cosine of {lead:.3f}, in "
        f"drawings by {world.least_lead} or more"
    )


def _word_notes(world: World, classes: ClassList) -> tuple[str, ...]:
    known = {_plain(name) for names in world.classes for name in names}
    unknown = [name for name in classes.names if _plain(name) not in known]
    if not unknown:
        return ()
    more = len(unknown) - _NAMED
    listed = ", ".join(unknown[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    titles = ", ".join(names[0] for names in world.classes)
    return (f"these networks do not know: {listed}. They know only {titles}",)


def _plain(name: str) -> str:
    """A name as captions have it: in small letters, without an article."""
    words = name.casefold().split()
    return " ".join(words[1:] if words[0] in ("a", "an", "the") else words)
