"""Notes about photos and words that the networks of a small world do not know.

The bundled networks know a drawn world of 20 classes. They give every photo labels, and
on photographs these mean nothing. So a result says which of its words they never met,
and whether the photo is no drawing of their world.
"""

import numpy as np
from jaxtyping import Float

from dslo_jax.pairs import World
from dslo_jax.pipeline import Batch
from dslo_jax.pipeline.placement import ArrayOrShape
from dslo_jax.pipeline.stages import Clock
from dslo_jax.prompts import ClassList, parse_classes


_NAMED = 10  # the most unknown words that a note lists


def world_notes(
    world: World,
    classes: ClassList,
    logits: Float[np.ndarray, "photos classes patches"],
) -> list[tuple[str, ...]]:
    """The notes of each photo about what the networks do not know.

    Args:
        world: What they know.
        classes: The classes that were asked for.
        logits: From ``world_logits``, on the host.

    Returns:
        For each photo its notes; none where everything is known.
    """
    words = _word_notes(world, classes)
    notes = []
    for lead in mean_leads(logits).tolist():
        is_drawing = lead >= world.least_lead
        notes.append(words if is_drawing else (*words, _foreign_note(world, lead)))
    return notes


def world_logits(world: World, batch: Batch) -> ArrayOrShape:
    """The logits of all classes of the world, whatever was asked for.

    Args:
        world: What the networks know.
        batch: The photos. Features that it has computed are used again.

    Returns:
        ``[batch classes patches]`` on the device, whose computation may still run.
    """
    compared = Batch(
        batch.networks,
        batch.scaled,
        parse_classes(world.classes),
        size=len(batch.padded),
        memory=batch.memory,
        clock=Clock(waits=batch.clock.waits),
        placement=batch.placement,
    )
    return compared.logits(world.config)


def mean_leads(
    logits: Float[np.ndarray, "photos classes patches"],
) -> Float[np.ndarray, " photos"]:
    """How far the best class of a patch is ahead of the second, on average.

    In a drawing, one of the classes fits each patch far better than the others. In a
    photograph several fit equally badly.

    Args:
        logits: From ``world_logits``, on the host.

    Returns:
        Mean over the patches of the difference of two cosines, 0 ... 2.
    """
    second, best = np.moveaxis(np.partition(logits, -2, axis=1)[:, -2:], 1, 0)
    return (best - second).mean(axis=-1)


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
