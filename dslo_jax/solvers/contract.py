"""What a discrepancy of one's own must be, and clear errors where it is not.

The rules are those of ``Discrepancy``. They are checked when a discrepancy is chosen
(``require_usable``), as soon as the shapes are known and before anything is compiled
(``check_solve``), and whenever its ``solve`` is traced (``solve_image``). The built-in
discrepancies are tested instead, and are not checked here.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dslo_jax.errors import DsloError, OptionError, is_out_of_memory
from dslo_jax.solvers.discrepancy import Discrepancy
from dslo_jax.solvers.solution import Solution


_FROZEN = (
    "write `@dataclass(frozen=True)` above the class, with its options as fields: a "
    "program is compiled for a discrepancy with its options, so they must not change"
)
_OF_THE_CLASS = {
    "name": "ClassVar[str]",
    "flat_names": "ClassVar[Mapping[str, str]]",
    "traced": "ClassVar[tuple[str, ...]]",
}
_TYPES = {"integers": jnp.integer, "floats": jnp.floating, "booleans": jnp.bool_}
_UNKNOWN_VALUE = (
    "it asks for the value of an array, which is known only when the program runs; "
)
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (
        jax.errors.TracerArrayConversionError,
        "it gives an array of JAX to NumPy, which needs its values before the program "
        "runs; use the function of the same name in `jax.numpy`",
    ),
    (
        jax.errors.TracerBoolConversionError,
        _UNKNOWN_VALUE + "use `jnp.where` or `jax.lax.cond` instead of `if`, and "
        "`dslo_jax.solvers.iterate` or `jax.lax.while_loop` instead of `while`",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        _UNKNOWN_VALUE + "sizes, and the ends of `range`, must be options or come from "
        "`source.shape`; use `jax.lax.fori_loop` for other numbers of steps",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "it chooses entries with a mask, `x[mask]`, so that a shape depends on values; "
        "use `jnp.where(mask, x, 0)`",
    ),
    (
        jax.errors.ConcretizationTypeError,
        _UNKNOWN_VALUE + "`float`, `int` and `.item()` do this; compute with the array "
        "itself",
    ),
)


def is_own(discrepancy: Discrepancy) -> bool:
    """Whether a person wrote the class; False for the built-in ones."""
    return type(discrepancy).__module__.partition(".")[0] != "dslo_jax"


def require_usable(discrepancy: Discrepancy) -> None:
    """Refuse a discrepancy of one's own whose class cannot be used.

    Args:
        discrepancy: Any discrepancy; the built-in ones are not checked.

    Raises:
        OptionError: The class breaks a rule of ``Discrepancy`` (``O10``).
    """
    for each in own_parts(discrepancy):
        _require_frozen(each)
        _require_name(each)
        _require_flat_names(each)
        _require_facts(each)
        _require_signature(each)


def check_solve(
    discrepancy: Discrepancy,
    classes: int,
    patches: int,
    dtype: DTypeLike = np.float32,
) -> None:
    """Refuse a discrepancy of one's own whose ``solve`` does not fit; nothing is run.

    ``solve`` is traced for one image with these shapes, once per shape. The built-in
    discrepancies are not traced.

    Args:
        discrepancy: Any discrepancy.
        classes: Number of classes.
        patches: Number of patches.
        dtype: Type of the affinity.

    Raises:
        OptionError: ``solve`` fails, or returns something else than a ``Solution`` with
            one row for each class (``O10``).
    """
    if any(True for _ in own_parts(discrepancy)):
        _trace(discrepancy, classes, patches, jnp.dtype(dtype))


def solve_image(
    discrepancy: Discrepancy,
    source: Float[Array | np.ndarray, "classes patches"],
    affinity: Float[Array | np.ndarray, "patches patches"] | None,
) -> Solution:
    """Call ``solve``; one of one's own is checked in addition, while it is traced.

    Args:
        discrepancy: Any discrepancy.
        source: As for ``Discrepancy.solve``.
        affinity: As for ``Discrepancy.solve``.

    Raises:
        OptionError: As for ``check_solve``.
    """
    if not is_own(discrepancy):
        return discrepancy.solve(source, affinity)
    try:
        found = discrepancy.solve(source, affinity)
    except Exception as error:
        if isinstance(error, DsloError) or is_out_of_memory(error):
            raise
        raise _failed(discrepancy, error, source, affinity) from error
    return _checked(discrepancy, found, source, affinity)


@lru_cache(maxsize=256)
def _trace(discrepancy: Discrepancy, classes: int, patches: int, dtype: Any) -> None:
    source = jax.ShapeDtypeStruct((classes, patches), jnp.float32)
    affinity = None
    if discrepancy.needs_affinity:
        affinity = jax.ShapeDtypeStruct((patches, patches), dtype)
    for attempt in discrepancy.attempts:
        jax.eval_shape(partial(solve_image, attempt), source, affinity)


def own_parts(discrepancy: Discrepancy) -> Iterator[Discrepancy]:
    """The discrepancy, and those that are its fields, as far as a person wrote them."""
    if is_own(discrepancy):
        yield discrepancy
    if dataclasses.is_dataclass(discrepancy):
        for field in dataclasses.fields(discrepancy):
            value = getattr(discrepancy, field.name)
            if isinstance(value, Discrepancy):
                yield from own_parts(value)


def _broken(message: str) -> OptionError:
    return OptionError("O10", message)


def _require_name(discrepancy: Discrepancy) -> None:
    kind, name = type(discrepancy).__name__, getattr(discrepancy, "name", None)
    if name is None:
        raise _broken(
            f"{kind} has no name; add a line such as `name = {kind.lower()!r}` to the "
            "class: results and reports call the discrepancy so"
        )
    if not isinstance(name, str) or not name.strip():
        raise _broken(f"{kind}.name is {name!r}; expected a text such as 'my_walk'")
    if name == "fused":
        raise _broken(
            f"{kind}.name is 'fused', which is the name of two discrepancies in one "
            "map; choose another"
        )


def _require_frozen(discrepancy: Discrepancy) -> None:
    kind = type(discrepancy).__name__
    parameters = getattr(discrepancy, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        what = "no dataclass" if parameters is None else "a dataclass, but not frozen"
        raise _broken(f"{kind} is {what}; {_FROZEN}")
    for field in dataclasses.fields(discrepancy):  # pyright: ignore
        value = getattr(discrepancy, field.name)
        if field.name in _OF_THE_CLASS:
            raise _broken(
                f"{kind}.{field.name} is a field, as the options are; write "
                f"`{field.name}: {_OF_THE_CLASS[field.name]} = ...`, with `from typing "
                "import ClassVar`"
            )
        if not _is_hashable(value):
            raise _broken(
                f"the field `{field.name}` of {kind} is a {type(value).__name__}, "
                "which cannot be hashed; a program is compiled for each value of the "
                "options, so use numbers, text or tuples: `tuple(values.tolist())`"
            )
    if not _is_hashable(discrepancy):
        raise _broken(f"{kind} cannot be hashed; remove its own `__eq__`, or `eq=`")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _require_flat_names(discrepancy: Discrepancy) -> None:
    kind, names = type(discrepancy).__name__, discrepancy.flat_names
    fields = {field.name for field in dataclasses.fields(discrepancy)}  # pyright: ignore
    if not isinstance(names, Mapping) or not all(
        isinstance(flat, str) and flat.isidentifier() for flat in names.values()
    ):
        raise _broken(
            f"{kind}.flat_names is {names!r}; expected fields and their names in "
            f"calls, such as {{'steps': '{discrepancy.name}_steps'}}"
        )
    for what, given in (("flat_names", names), ("traced", discrepancy.traced)):
        for field in given:
            if field not in fields:
                raise _broken(
                    f"{kind}.{what} names {field!r}, but the fields of {kind} are "
                    f"{', '.join(sorted(fields)) or 'none'}; correct the name, and "
                    f"give the field a type: `{field}: float = 0.5`"
                )


def _require_facts(discrepancy: Discrepancy) -> None:
    kind = type(discrepancy).__name__
    for name in ("needs_affinity", "takes_logits", "wants_counts"):
        value = getattr(discrepancy, name)
        if not isinstance(value, bool):
            what = "a method" if callable(value) else repr(value)
            raise _broken(
                f"{kind}.{name} is {what}; expected True or False: write a line such "
                f"as `{name} = True` into the class, or make it a property"
            )
    attempts = discrepancy.attempts
    if not (isinstance(attempts, tuple) and attempts) or not all(
        isinstance(each, Discrepancy) for each in attempts
    ):
        raise _broken(
            f"{kind}.attempts is {attempts!r:.200}; expected a tuple of discrepancies, "
            "at least one"
        )


def _require_signature(discrepancy: Discrepancy) -> None:
    try:
        inspect.signature(discrepancy.solve).bind(None, None)
    except TypeError as error:
        found = inspect.signature(type(discrepancy).solve)
        raise _broken(
            f"{type(discrepancy).__name__} has `solve{found}`; expected "
            "`solve(self, source, affinity=None)`, also if it reads no affinity"
        ) from error


def _failed(
    discrepancy: Discrepancy, error: Exception, source: Any, affinity: Any
) -> OptionError:
    """The error about an exception in ``solve``."""
    remedy = next((words for kind, words in _REMEDIES if isinstance(error, kind)), None)
    if remedy is None:
        lines = str(error).strip().splitlines() or [""]
        remedy = f"{type(error).__name__}: {lines[0]:.300}"
        solve = inspect.getattr_static(type(discrepancy), "solve")
        if not inspect.isfunction(solve):
            remedy += "; `solve` has a decorator, and needs none: it is compiled anyway"
    kind, place = type(discrepancy).__name__, _place(discrepancy, error)
    return _broken(
        f"{kind}.solve failed{place} for one image with {_given(source, affinity)}: "
        f"{remedy}"
    )


def _place(discrepancy: Discrepancy, error: Exception) -> str:
    """The line of the file of the class in which an exception arose."""
    code = getattr(inspect.unwrap(type(discrepancy).solve), "__code__", None)
    file = getattr(code, "co_filename", None)
    found, place = error.__traceback__, ""
    while found is not None:
        if found.tb_frame.f_code.co_filename == file:
            place = f" in line {found.tb_lineno} of {Path(str(file)).name}"
        found = found.tb_next
    return place


def _given(source: Any, affinity: Any) -> str:
    """The shapes that ``solve`` was called with, in words."""
    words = f"`source` {_described(source)}"
    if affinity is None:
        return f"{words} and no affinity"
    return f"{words} and `affinity` {_described(affinity)}"


def _described(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _checked(
    discrepancy: Discrepancy, found: Any, source: Any, affinity: Any
) -> Solution:
    """The solution as arrays of JAX; refuse anything that is none."""
    solve = f"{type(discrepancy).__name__}.solve"
    if not isinstance(found, Solution):
        raise _broken(
            f"{solve} returned {_told(found)}; expected a Solution: `return "
            "Solution.exact(value)` for a closed form, otherwise `return Solution("
            "value, num_steps, error, converged, reason)`"
        )
    arrays = Solution(*(_array(solve, *each) for each in found._asdict().items()))
    expected = source.shape[:1]
    _require_value(solve, arrays.value, source, affinity)
    kinds = {"num_steps": "integers", "error": "floats", "converged": "booleans"}
    for name, kind in (kinds | {"reason": "integers"}).items():
        array = getattr(arrays, name)
        if array.shape != expected:
            remedy = "one number for each class"
            if array.shape == ():
                remedy = f"`jnp.full(len(source), {name})` gives every class the same"
            raise _broken(
                f"{solve} returned `{name}` of shape {array.shape}, expected "
                f"{expected}, which is [classes], for {_given(source, affinity)}; "
                f"{remedy}"
            )
        if not jnp.issubdtype(array.dtype, _TYPES[kind]):
            raise _broken(
                f"{solve} returned `{name}` of type {array.dtype}, expected {kind}"
            )
    return arrays


def _array(solve: str, name: str, field: Any) -> Array:
    try:
        return jnp.asarray(field)
    except (TypeError, ValueError) as error:
        raise _broken(
            f"{solve} returned `{name}` = {field!r:.100}, expected an array"
        ) from error


def _require_value(solve: str, value: Array, source: Any, affinity: Any) -> None:
    if value.shape != source.shape:
        turned = value.shape == source.shape[::-1]
        remedy = "`value.T` has it" if turned else "one map for each class"
        raise _broken(
            f"{solve} returned `value` of shape {value.shape}, expected "
            f"{source.shape}, which is [classes, patches], for "
            f"{_given(source, affinity)}; {remedy}"
        )
    given = [array.dtype for array in (source, affinity) if array is not None]
    if value.dtype != jnp.float32 and not value.dtype == jnp.float64 in given:
        raise _broken(
            f"{solve} returned `value` of type {value.dtype}, expected float32, the "
            "type of `source`; `value.astype(source.dtype)` has it"
        )


def _told(found: Any) -> str:
    """What ``solve`` returned, in words."""
    if found is None:
        return "None (is `return` missing?)"
    if hasattr(found, "dtype") and hasattr(found, "shape"):
        return f"an array, {_described(found)}"
    if type(found) is tuple:
        return f"a tuple of {len(found)}"
    return f"a {type(found).__name__}"
