"""Steps from logits to sources: synonyms, early rejection, suppression, normalisation.

All arrays are ``[classes patches]``. A row that holds NaN has NaN in the result, too.
Every function can be jitted and vmapped.
"""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


Suppression = Literal["minmax", "softmax", "relative", "none"]


def reduce_synonyms(
    logits: Float[Array, "names patches"],
    class_of_name: Sequence[int] | Int[Array | np.ndarray, " names"],
    num_classes: int,
) -> Float[Array, "classes patches"]:
    """Merge the names of each class into one row, by their maximum.

    Args:
        logits: Cosines of every name, not scaled.
        class_of_name: Class of each name, from 0 to ``num_classes - 1``. An integer
            array lets lists of equal length share a compiled program.
        num_classes: Number of classes.

    Returns:
        Float32 cosines of every class.

    Raises:
        ValueError: A class has no name, or an index is not a class. A traced
            ``class_of_name`` is not checked.
    """
    if not isinstance(class_of_name, jax.Array):
        class_of_name = np.asarray(class_of_name, np.int32)
        if class_of_name.shape != logits.shape[:1]:
            raise ValueError(
                f"class_of_name has {class_of_name.size} entries for "
                f"{logits.shape[0]} rows of logits; expected one per row"
            )
        if set(class_of_name.tolist()) != set(range(num_classes)):
            raise ValueError(
                f"class_of_name names the classes {sorted(set(class_of_name.tolist()))}"
                f"; expected each of 0 to {num_classes - 1} at least once"
            )
    return jax.ops.segment_max(
        logits.astype(jnp.float32), jnp.asarray(class_of_name), num_classes
    )


def reject_classes(
    logits: Float[Array, "classes patches"], *, share: float = 0.0
) -> Bool[Array, " classes"]:
    """Early rejection: drop classes that win too few patches (Algorithm 1, line 2).

    A class wins a patch when its logit there is the greatest of all classes.

    Args:
        logits: Cosines of every class.
        share: Share of the patches, in [0, 1], that a class must exceed to stay. With
            0, as in the paper, one patch is enough. The class that wins the most
            patches always stays.

    Returns:
        True for the classes that stay, at least one. A tied patch is won by the lowest
        index.
    """
    classes, patches = logits.shape
    winners = jnp.argmax(logits, axis=0)
    wins = jnp.zeros(classes, jnp.int32).at[winners].add(1)
    return wins > jnp.minimum(math.floor(share * patches), wins.max() - 1)


def suppress(
    logits: Float[Array, "classes patches"],
    *,
    method: Suppression = "relative",
    threshold: float = 0.9,
    scale: float = 100.0,
    active: Bool[Array, " classes"] | None = None,
) -> Bool[Array, "classes patches"]:
    """Non-maximum suppression: keep the patches in which a class is confident.

    A class whose patches are all below the threshold keeps its best patch. Patches
    that share the best score are kept together, so a constant map keeps all patches.
    Every class keeps at least one patch.

    Args:
        logits: Cosines of every class.
        method: The confidence that is compared with the threshold. ``"minmax"``: the
            cosines of the class, scaled to [0, 1]; ``"softmax"``: the probability
            among the classes; ``"relative"``: that probability, divided by the
            greatest of the class; ``"none"``: all patches are kept.
        threshold: From 0 (keep all) to 1 (keep the best).
        scale: Factor on the cosines before the softmax among classes; 100 is the
            scale that CLIP learned. Unused by ``"minmax"``.
        active: Classes that take part in the softmax; default: all. Rows that only
            pad a shape must not take probability from real ones.

    Returns:
        True where a patch is kept.

    Raises:
        ValueError: The threshold lies outside [0, 1], or the method is unknown.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    if method == "none":
        return jnp.ones(logits.shape, bool)
    logits = logits.astype(jnp.float32)
    if method == "minmax":
        # The limit is multiplied by the range, because dividing a constant map by its
        # range would be 0 / 0.
        score = logits - logits.min(axis=1, keepdims=True)
        limit = threshold * score.max(axis=1, keepdims=True)
    elif method in ("softmax", "relative"):
        # Logarithms, because the probability of an improbable class underflows to 0 in
        # every patch, which would keep all of its patches instead of the best one.
        score = _log_probability(scale * logits, active)
        limit = jnp.log(jnp.full((score.shape[0], 1), threshold, jnp.float32))
        if method == "relative":
            limit = limit + score.max(axis=1, keepdims=True)
    else:
        raise ValueError(
            f"unknown method {method!r}; expected 'minmax', 'softmax', 'relative' or "
            "'none'"
        )
    # ``score >= limit`` would drop NaN, and the class would look empty.
    is_sure = ~(score < jnp.minimum(limit, score.max(axis=1, keepdims=True)))
    # The best patch is found by its index: the compiler may compute the score twice and
    # round differently, and then no score equals the maximum.
    best = jnp.argmax(score, axis=1, keepdims=True)
    return is_sure | (jnp.arange(score.shape[1])[None] == best)


def normalize(
    logits: Float[Array, "classes patches"],
    keep: Bool[Array, "classes patches"],
    *,
    scale: float = 1.0,
) -> Float[Array, "classes patches"]:
    """Turn each class into a distribution over its kept patches (Eq. 14).

    Args:
        logits: Cosines of every class.
        keep: Patches that carry mass, at least one per class (``suppress``).
        scale: Factor on the cosines before the softmax over patches. Near 0, all kept
            patches have the same mass; at 100, the best few have nearly all of it.

    Returns:
        Source ``f`` in float32; rows sum to 1, and patches that are not kept are 0.
    """
    return jax.nn.softmax(scale * logits.astype(jnp.float32), axis=1, where=keep)


def greatest_probability(
    logits: Float[Array, "names patches"], *, scale: float
) -> Float[Array, " patches"]:
    """The greatest probability of any name, for each patch.

    The probabilities are ``softmax(scale * logits)`` over the names. The greatest one
    is that of the best name of the best class, whatever the classes are.

    Args:
        logits: Cosines of every name, or of every class.
        scale: Factor on the cosines before the softmax.

    Returns:
        Float32 probabilities in (0, 1]. Finite logits never give NaN.
    """
    logits = logits.astype(jnp.float32)
    # The compiler may compute the logits twice and round differently, and then none
    # equals the maximum. The best name counts 1 all the same.
    behind = jnp.minimum(logits - jnp.max(logits, axis=0, keepdims=True), 0)
    return 1 / jnp.maximum(jnp.sum(jnp.exp(scale * behind), axis=0), 1)


def _log_probability(
    logits: Float[Array, "classes patches"], active: Bool[Array, " classes"] | None
) -> Float[Array, "classes patches"]:
    """Logarithm of each class's probability among the active classes."""
    taking_part = None if active is None else active[:, None]
    return logits - jax.nn.logsumexp(logits, axis=0, where=taking_part, keepdims=True)
