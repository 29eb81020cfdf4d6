"""Clear errors for the derivatives that a loop does not have.

The loop has a reverse mode of its own (``_loop``), and JAX allows no forward mode
beside it. The error of JAX speaks of ``custom_vjp``, which a caller has never seen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


_FORWARD = (
    "the solvers have no forward mode (jax.jvp, jax.linearize, jax.jacfwd, "
    "jax.hessian): use jax.grad, jax.vjp or jax.jacrev"
)
_SECOND = "the solvers have no second derivatives: differentiate them once"


def backward_only(tree: Any) -> Any:
    """The same arrays; forward-mode derivatives that reach them are refused."""
    return _over_floats(_guard.bind, tree)


def once_only(tree: Any) -> Any:
    """The same arrays; derivatives that reach them are refused."""
    return _over_floats(_without_derivative, tree)


def _over_floats(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply the function to the leaves that can have a gradient."""
    return jax.tree.map(
        lambda leaf: (
            function(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        ),
        tree,
    )


@jax.custom_jvp
def _without_derivative(leaf: jax.Array) -> jax.Array:
    return leaf


@_without_derivative.defjvp
def _refuse_second(*_: Any) -> Any:
    raise NotImplementedError(_SECOND)


def _refuse_forward(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(_FORWARD)


# The identity on tangents. Reverse mode transposes it and never runs it. Forward mode
# runs it: directly, compiled, or for a batch of tangents.
_tangent = Primitive("backward_only_tangent")
_tangent.def_abstract_eval(lambda leaf: leaf)
ad.deflinear2(_tangent, lambda cotangent, _: [cotangent])
_tangent.def_impl(_refuse_forward)
mlir.register_lowering(_tangent, _refuse_forward)
batching.primitive_batchers[_tangent] = _refuse_forward

# The identity on the arrays that are differentiated.
_guard = Primitive("backward_only")
_guard.def_abstract_eval(lambda leaf: leaf)
_guard.def_impl(lambda leaf: leaf)
mlir.register_lowering(_guard, lambda _, leaf: [leaf])
batching.primitive_batchers[_guard] = lambda leaves, axes: (
    _guard.bind(*leaves),
    axes[0],
)
ad.primitive_jvps[_guard] = lambda primals, tangents: (
    _guard.bind(*primals),
    tangents[0] if type(tangents[0]) is ad.Zero else _tangent.bind(*tangents),
)
