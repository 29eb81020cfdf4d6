"""Attention modules of PyTorch that are watched for their queries and keys.

A module is recognised by its parts, not by its library:

==========================  =========================================================
``qkv``                     one projection for all three: timm, DINO, DINOv2
``q_proj``, ``k_proj``      transformers, and many others
``to_q``, ``to_k``          diffusers
``query``, ``key``          older versions of transformers
``nn.MultiheadAttention``   OpenAI's CLIP, open_clip, and PyTorch itself
==========================  =========================================================
"""

import difflib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torch_bridge.arrays import BridgeError


_SEPARATE = (("q_proj", "k_proj"), ("to_q", "to_k"), ("query", "key"))
_HEADS = ("num_heads", "num_attention_heads", "heads", "n_heads", "n_head")
_NORMS = ("q_norm", "k_norm", "norm_q", "norm_k")

Heads = Float[Tensor, "batch heads tokens head_channels"]


class WatchedAttention:
    """An attention module that is watched for its queries and keys.

    Every forward pass of the module keeps a copy of both, until ``take`` or the next
    pass.

    Args:
        model: The model that holds the module.
        name: Name of the module, as ``model.named_modules()`` gives it.
        heads: Number of heads, where the module does not state it.

    Raises:
        BridgeError: There is no such module, or its queries and keys cannot be watched
            (``B07``).
    """

    def __init__(self, model: nn.Module, name: str, heads: int | None = None):
        self.name = name
        self._found: dict[str, Tensor] = {}
        module = _find(model, name)
        self._heads = heads or _heads_of(module, name)
        self._handles = self._hooks(module)

    def take(self) -> tuple[Heads, Heads]:
        """The queries and keys of the latest pass, which are then forgotten.

        Raises:
            BridgeError: The module has not run since the last call, or its queries and
                keys do not have the same heads (``B07``).
        """
        found = self._found
        self.forget()
        if set(found) != {"query", "key"}:
            raise BridgeError(
                "B07",
                f"the attention {self.name!r} has not run since the last call of the "
                "head; run the model on each batch before the head. If it has run, the "
                "model uses the weights of this module without calling it: watch "
                "another layer",
            )
        query, key = found["query"], found["key"]
        if query.ndim != 3 or query.shape != key.shape or query.shape[2] % self._heads:
            raise BridgeError(
                "B07",
                f"the attention {self.name!r} has queries of shape "
                f"{tuple(query.shape)} and keys of shape {tuple(key.shape)}, expected "
                f"the same [batch, tokens, channels] for {self._heads} heads; watch a "
                "self-attention with as many heads for keys as for queries",
            )
        return self._by_head(query), self._by_head(key)

    def forget(self) -> None:
        """Forget the queries and keys of the latest pass."""
        self._found = {}

    def remove(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _by_head(self, tokens: Tensor) -> Heads:
        return tokens.unflatten(2, (self._heads, -1)).transpose(1, 2)

    def _hooks(self, module: nn.Module) -> list[Any]:
        if isinstance(module, nn.MultiheadAttention):
            keep = self._keep_inputs
            return [module.register_forward_pre_hook(keep, with_kwargs=True)]
        if _is_linear(module, "qkv"):
            return [module.get_submodule("qkv").register_forward_hook(self._keep_all)]
        return [
            module.get_submodule(part).register_forward_hook(partial(self._keep, role))
            for part, role in zip(_parts_of(module), ("query", "key"), strict=True)
        ]

    def _keep(self, role: str, module: nn.Module, args: Any, output: Tensor) -> None:
        # A copy, because the model may scale its queries in place.
        self._found[role] = output.detach().clone()

    def _keep_all(self, module: nn.Module, args: Any, output: Tensor) -> None:
        query, key, _ = output.detach().chunk(3, dim=-1)
        self._found = {"query": query.clone(), "key": key.clone()}

    @torch.no_grad()
    def _keep_inputs(
        self, module: nn.MultiheadAttention, args: Any, kwargs: Mapping[str, Any]
    ) -> None:
        """Project the inputs, as the module itself will do out of sight."""
        given = dict(zip(("query", "key"), args, strict=False)) | dict(kwargs)
        weights = (module.q_proj_weight, module.k_proj_weight)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)[:2]
        biases = (None, None)
        if module.in_proj_bias is not None:
            biases = module.in_proj_bias.chunk(3)[:2]
        for role, weight, bias in zip(("query", "key"), weights, biases, strict=True):
            tokens = nn.functional.linear(given[role], weight, bias)
            is_turned = tokens.ndim == 3 and not module.batch_first
            self._found[role] = tokens.transpose(0, 1) if is_turned else tokens


def _find(model: nn.Module, name: str) -> nn.Module:
    """The attention of this name; an error lists those that can be watched."""
    modules = dict(model.named_modules())
    module = modules.get(name)
    if module is not None and _can_be_watched(module):
        return module
    known = [each for each, other in modules.items() if _can_be_watched(other)]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.0)
    fault = "is no attention that can be watched" if module else "is no module"
    remedy = (
        f"there are {len(known)}, such as {', '.join(map(repr, near))}"
        if known
        else "there is none here; pass queries and keys to the head yourself"
    )
    raise BridgeError("B07", f"{name!r} {fault} of {type(model).__name__}; {remedy}")


def _can_be_watched(module: nn.Module) -> bool:
    if any(_changes_values(getattr(module, norm, None)) for norm in _NORMS):
        return False  # what the projections give is not yet what is compared
    if isinstance(module, nn.MultiheadAttention):
        return module.bias_k is None and not module.add_zero_attn
    return _is_linear(module, "qkv") or bool(_parts_of(module))


def _changes_values(norm: Any) -> bool:
    return isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity)


def _is_linear(module: nn.Module, part: str) -> bool:
    return isinstance(getattr(module, part, None), nn.Linear)


def _parts_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the projections to queries and to keys; none if there are no such."""
    for parts in _SEPARATE:
        if all(_is_linear(module, part) for part in parts):
            return parts
    return ()


def _heads_of(module: nn.Module, name: str) -> int:
    for attribute in _HEADS:
        heads = getattr(module, attribute, None)
        if isinstance(heads, int) and heads > 0:
            return heads
    raise BridgeError(
        "B07", f"the attention {name!r} does not state its heads; pass heads="
    )
