"""The method as a module of PyTorch, for logits and attention of any model."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Array, Float, Int64
from torch import Tensor

from dslo_jax import segment_logits
from dslo_jax.attention import average_attention
from dslo_jax.config import SegmenterConfig
from dslo_jax.models.query_key import QueryKey
from dslo_jax.pipeline.stages import Clock, Stage
from dslo_jax.segmentation import Segmentation
from dslo_jax.solvers import Discrepancy
from torch_bridge.arrays import BridgeError, to_jax
from torch_bridge.photos import photos_of, words_of
from torch_bridge.watching import Heads, WatchedAttention


Attention = Float[Tensor, "batch patches patches"] | tuple[Heads, Heads]
"""Self-attention, or queries and keys of every head."""


class HeadOutput(NamedTuple):
    """The result of a ``DSLOHead`` for a batch, on the device of the logits.

    Attributes:
        labels: Index of the class of every pixel; a list if ``image`` was one, because
            its photos may differ in size.
        discrepancy: Discrepancy map of every class on the grid of the logits; minus
            infinity for a class that was rejected early.
        segmentations: The same results with a report of each class, ties, timings and
            notes; see ``dslo_jax.Segmentation``.
    """

    labels: Int64[Tensor, "batch height width"] | list[Int64[Tensor, "height width"]]
    discrepancy: Float[Tensor, "batch classes h w"]
    segmentations: list[Segmentation]

    def one_hot(self) -> Float[Tensor, "batch classes height width"]:
        """The labels as scores: 1 for the class of a pixel, 0 for all others.

        This is for programs that take the greatest score of every pixel themselves.

        Raises:
            BridgeError: The photos differ in size (``B04``).
        """
        sizes = {tuple(each.shape) for each in self.labels}
        if len(sizes) > 1:
            raise BridgeError(
                "B04",
                f"the photos have the sizes {sorted(sizes)}; one tensor holds scores "
                "of one size: use `labels`, or one photo at a time",
            )
        labels = torch.stack(list(self.labels))[:, None]
        number = self.discrepancy.shape[1]
        shape = len(labels), number, *labels.shape[2:]
        return self.discrepancy.new_zeros(shape).scatter_(1, labels, 1.0)


class DSLOHead(torch.nn.Module):
    """Turns logits, attention and images into labels: ``segment_logits`` for PyTorch.

    It has no parameters and no gradient. The inputs are copied, so that a later change
    of a tensor has no effect. It computes where the tensors are, if JAX has this
    device.

    Args:
        classes: Names of the classes, for reports and errors; default: numbers.
        prefix_tokens: Number of tokens before the patches in queries and keys: the
            class token and registers. They take part in the softmax and are left out
            after it.
        zero_copy: Whether the attention ``[B, N, N]`` is read where it is, without a
            copy. It must be contiguous, and nothing may write to it during the call.
        allow_host_copy: Whether tensors on a device that JAX does not have are copied
            through host memory; then the default device of JAX computes.
        config: Options of the method; those of CLIP are not used, and
            ``affinity_temperature`` only for queries and keys.
        discrepancy: The discrepancy to solve for, instead of that of ``config``.
        **options: Other options by their flat names, such as ``mode="path"``.

    Raises:
        OptionError: An option is unknown or out of range.

    Example:
        >>> head = DSLOHead(mode="path")
        >>> logits, attention = torch.rand(1, 3, 8, 8), torch.full((1, 64, 64), 1 / 64)
        >>> head(logits, attention, torch.rand(1, 3, 32, 48)).labels.shape
        torch.Size([1, 32, 48])
    """

    def __init__(
        self,
        *,
        classes: Sequence[str] | None = None,
        prefix_tokens: int = 0,
        zero_copy: bool = False,
        allow_host_copy: bool = False,
        config: SegmenterConfig | None = None,
        discrepancy: Discrepancy | None = None,
        **options: Any,
    ):
        super().__init__()
        self.config = (config or SegmenterConfig()).with_options(
            discrepancy=discrepancy, **options
        )
        self.classes = classes
        self.prefix_tokens = prefix_tokens
        self.zero_copy = zero_copy
        self.allow_host_copy = allow_host_copy
        self._watched: list[WatchedAttention] = []

    def watch(
        self, model: torch.nn.Module, *names: str, heads: int | None = None
    ) -> "DSLOHead":
        """Collect queries and keys of attention modules whenever these run.

        A call of the head without attention uses those of the latest pass, and only
        once. Several modules are averaged. What a module does with queries and keys
        after their projection (masks, rotary positions) is not seen.

        Args:
            model: The model that holds the modules.
            *names: Their names, as ``model.named_modules()`` gives them, such as
                ``"blocks.11.attn"``. ``torch_bridge.watching`` lists what is
                recognised.
            heads: Number of heads, where a module does not state it.

        Returns:
            The head itself.

        Raises:
            BridgeError: There is no such module, or its queries and keys cannot be
                watched (``B07``).
        """
        self._watched += [WatchedAttention(model, name, heads) for name in names]
        return self

    def unwatch(self) -> None:
        """Watch no module any more."""
        for watched in self._watched:
            watched.remove()
        self._watched = []

    def forward(
        self,
        logits: Float[Tensor, "batch classes h w"],
        attention: Attention | None,
        image: Any,
        **options: Any,
    ) -> HeadOutput:
        """Compute labels and discrepancies.

        Args:
            logits: Logit of every class in every patch; the greater, the better the
                class fits.
            attention: Self-attention from patch (row) to patch (column) of the same
                grid, or a pair of queries and keys, ``[batch, heads, tokens,
                head_channels]``, whose attention is averaged over the heads. ``None``
                for what ``watch`` collected, or if the discrepancy needs none.
            image: The photos, RGB: a tensor ``[batch, 3, height, width]``, uint8 or
                float in [0, 1]; or a list of such tensors without a batch axis, of
                paths, of Pillow images or of arrays. Not a normalised image.
            **options: Other options for this call, by their flat names.

        Raises:
            BridgeError: A tensor has the wrong shape or type (``B04``), no plain memory
                (``B01``), values that would be lost (``B02``), or the wrong device
                (``B03``); memory cannot be shared (``B05``); a watched module has not
                run (``B07``).
            ImageError: An image is normalised or out of range (``I06``), or cannot be
                read.
            OptionError: An option is unknown or out of range.
            SolverError: The logits or the attention have values that no solver can use.
        """
        config = self.config.with_options(**options)
        _check_logits(logits)
        photos = photos_of(image, len(logits))
        notes, clock = _notes("logits", logits), Clock()
        given = self._bring("logits", logits)
        affinity = None
        if config.discrepancy.needs_affinity:
            affinity = self._affinity(attention, logits, config, clock)
            if isinstance(attention, Tensor):
                notes += _notes("attention", attention)
        for each in self._watched:
            each.forget()
        results = segment_logits(
            given, affinity, photos, classes=self.classes, config=config
        )
        assert isinstance(results, list)  # because the logits have a batch axis
        results = [
            dataclasses.replace(
                each,
                notes=(*each.notes, *notes),
                timings=(*clock.timings, *each.timings),
            )
            for each in results
        ]
        return _output(results, logits.device, stacked=isinstance(image, Tensor))

    def extra_repr(self) -> str:
        """The discrepancy, and what is watched."""
        names = "".join(f", watching {each.name!r}" for each in self._watched)
        return f"mode={self.config.discrepancy.name!r}{names}"

    def _affinity(
        self, attention: Any, logits: Tensor, config: SegmenterConfig, clock: Clock
    ) -> Array:
        """The attention as an array of JAX."""
        if isinstance(attention, Tensor):
            _check_attention(attention, logits)
            return self._bring("attention", attention, zero_copy=self.zero_copy)
        if attention is None and not self._watched:
            raise BridgeError(
                "B04",
                f"`attention` is None, but mode {config.discrepancy.name!r} needs one; "
                'pass it, call head.watch(model, "name of an attention") first, or '
                'use mode="kl" or mode="logits"',
            )
        layers = [attention]
        if attention is None:
            layers = [each.take() for each in self._watched]
        pairs = []
        for pair in layers:
            query, key = _check_pair(pair, logits, self.prefix_tokens)
            patches = query[:, :, self.prefix_tokens :]
            pairs.append((self._bring("queries", patches), self._bring("keys", key)))
        temperature = config.affinity.temperature
        return _AVERAGE(clock, tuple(pairs), temperature=temperature)

    def _bring(self, name: str, tensor: Tensor, *, zero_copy: bool = False) -> Array:
        """The tensor as an array of JAX; an error says which tensor it is about."""
        try:
            return to_jax(
                tensor, zero_copy=zero_copy, allow_host_copy=self.allow_host_copy
            )
        except BridgeError as error:
            message = str(error).removeprefix(f"[{error.code}] ")
            raise BridgeError(error.code, f"`{name}`: {message}") from error


def _average(
    pairs: tuple[tuple[Array, Array], ...], *, temperature: float
) -> Float[Array, "batch patches patches"]:
    """The mean attention over the heads and the layers."""
    turned = [QueryKey(q.swapaxes(1, 2), k.swapaxes(1, 2)) for q, k in pairs]
    weights = (1 / len(pairs),) * len(pairs)
    return average_attention(turned, weights, temperature=temperature)


_AVERAGE = Stage("attention", _average)


def _output(
    results: list[Segmentation], device: torch.device, *, stacked: bool
) -> HeadOutput:
    maps = np.stack([each.discrepancy for each in results])
    labels = [
        torch.from_numpy(each.labels.astype(np.int64)).to(device) for each in results
    ]
    return HeadOutput(
        torch.stack(labels) if stacked else labels,
        torch.from_numpy(maps).to(device),
        results,
    )


def _check_logits(logits: Any) -> None:
    if isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 4:
        return
    raise BridgeError(
        "B04",
        f"`logits` is {words_of(logits)}, expected floats of shape [batch, classes, h, "
        "w]; add a batch axis with logits[None], or move the classes to axis 1",
    )


def _check_attention(attention: Tensor, logits: Tensor) -> None:
    """Refuse attention that does not fit the logits; the error names the remedy."""
    _check_device("attention", attention, logits)
    batch, _, rows, columns = logits.shape
    patches = rows * columns
    expected = batch, patches, patches
    if attention.shape == expected and attention.is_floating_point():
        return
    if attention.ndim == 4:
        remedy = "average the heads first: attention.mean(dim=1)"
    elif attention.shape == (batch, patches + 1, patches + 1):
        remedy = "leave out the class token: attention[:, 1:, 1:]"
    else:
        remedy = _RESAMPLE
    raise BridgeError(
        "B04",
        f"`attention` is {words_of(attention)}, expected floats of shape {expected} "
        f"for logits of shape {tuple(logits.shape)}; {remedy}",
    )


def _check_pair(pair: Any, logits: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Refuse queries and keys that do not fit the logits."""
    is_pair = isinstance(pair, tuple) and len(pair) == 2
    if not is_pair or not all(isinstance(each, Tensor) for each in pair):
        raise BridgeError(
            "B04",
            f"`attention` is {words_of(pair)}, expected a tensor [batch, patches, "
            "patches], or a tuple of two tensors: queries and keys",
        )
    query, key = pair
    batch, _, rows, columns = logits.shape
    tokens = rows * columns + prefix
    fits = query.ndim == 4 and query.shape == key.shape
    fits = fits and (query.shape[0], query.shape[2]) == (batch, tokens)
    if not fits or not (query.is_floating_point() and key.is_floating_point()):
        extra = query.shape[2] - rows * columns if query.ndim == 4 else -1
        remedy = _RESAMPLE
        if 0 <= extra <= _FEW and extra != prefix:
            remedy = f"if the first {extra} are no patches, prefix_tokens={extra}"
        raise BridgeError(
            "B04",
            f"queries are {words_of(query)} and keys {words_of(key)}, expected floats "
            f"of shape ({batch}, heads, {tokens}, head_channels) for logits of shape "
            f"{tuple(logits.shape)} and prefix_tokens = {prefix}; {remedy}",
        )
    _check_device("queries", query, logits)
    _check_device("keys", key, logits)
    return query, key


_FEW = 8  # tokens before the patches: a class token and registers
_RESAMPLE = (
    "resample the logits to the grid of the attention: "
    'torch.nn.functional.interpolate(logits, (rows, columns), mode="bilinear")'
)


def _check_device(name: str, tensor: Tensor, logits: Tensor) -> None:
    if tensor.device != logits.device:
        raise BridgeError(
            "B03",
            f"`{name}` is on {tensor.device} and `logits` on {logits.device}; move one "
            "of them: .to(logits.device)",
        )


def _notes(name: str, tensor: Tensor) -> tuple[str, ...]:
    """What is done to a tensor on its way to JAX."""
    notes = []
    if tensor.requires_grad:
        notes.append(f"{name} detached from their gradient")
    if not tensor.is_contiguous():
        notes.append(f"{name} copied once more to be contiguous")
    return tuple(notes)
