"""Every mistake in a discrepancy of one's own has a code, a name and a remedy."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.solvers import Discrepancy, Fused, MaximumVelocity, OptimalPath, Solution
from dslo_jax.solvers.contract import check_solve, require_usable, solve_image


CLASSES, PATCHES = 3, 16


@dataclass(frozen=True)
class Mine(Discrepancy):
    """Right in everything; what is wrong comes from a subclass."""

    name: ClassVar[str] = "mine"

    chance: float = 0.5
    steps: int = 2

    def solve(self, source, affinity=None):
        return Solution.exact(self.chance * source @ affinity)


def given(value, source, **status):
    """A solution with some fields as they are told."""
    return Solution.exact(value(source))._replace(**status)


def wrong(solve, **names):
    """A discrepancy of a class called Wrong with another ``solve``."""
    return type("Wrong", (Mine,), {"solve": solve, **names})()


def masked(self, source, affinity=None):
    return Solution.exact(source[source > 0])


def branched(self, source, affinity=None):
    if source.sum() > 1:
        source = source / 2
    return Solution.exact(source)


def in_numpy(self, source, affinity=None):
    return Solution.exact(jnp.asarray(np.asarray(source) / 2))


def counted(self, source, affinity=None):
    for _ in range(jnp.argmax(source)):
        source = source / 2
    return Solution.exact(source)


def measured(self, source, affinity=None):
    return Solution.exact(source * float(source.max()))


def misspelt(self, source, affinity=None):
    return Solution.exact(jnp.matmull(source, affinity))


def batched(self, source, affinity=None):
    batch, _, _ = source.shape
    return Solution.exact(source / batch)


@jax.jit
def jitted(self, source, affinity=None):
    return Solution.exact(source)


FAILURES = {
    masked: r"mask, `x\[mask\]`.*jnp\.where",
    branched: r"jnp\.where.*instead of `if`",
    in_numpy: r"gives an array of JAX to NumPy.*jax\.numpy",
    counted: r"ends of `range`.*lax\.fori_loop",
    measured: r"`float`, `int` and `\.item\(\)`",
    misspelt: r"AttributeError: .*'matmull'",
    batched: r"one image with `source` float32 \[3, 16\].*ValueError: not enough",
    jitted: r"`solve` has a decorator, and needs none",
}


@pytest.mark.parametrize("solve", FAILURES, ids=lambda solve: solve.__name__)
def test_an_exception_in_solve_is_explained_and_kept(solve):
    with pytest.raises(OptionError, match=FAILURES[solve]) as caught:
        check_solve(wrong(solve), CLASSES, PATCHES)
    assert caught.value.code == "O10"
    assert "Wrong.solve failed" in str(caught.value)
    assert "`affinity` float32 [16, 16]" in str(caught.value)
    assert caught.value.__cause__ is not None
    if solve is not jitted:
        line = solve.__code__.co_firstlineno
        words = str(caught.value).split("in line ")[1]
        number, file = words.split(" of ")[0], words.split()[2]
        assert line < int(number) < line + 4
        assert file == "test_contract.py"


RETURNED = {
    "an array": (lambda s: s, r"an array, float32 \[3, 16\].*Solution\.exact\(value\)"),
    "nothing": (lambda s: None, "None .is `return` missing"),
    "a tuple": (lambda s: (s, s), "a tuple of 2; expected a Solution"),
    "text": (lambda s: "map", "a str; expected a Solution"),
    "turned": (
        lambda s: Solution.exact(s)._replace(value=s.T),
        r"`value` of shape \(16, 3\), expected \(3, 16\).*`value\.T`",
    ),
    "one map": (
        lambda s: Solution.exact(s)._replace(value=s[0]),
        r"`value` of shape \(16,\).*one map for each class",
    ),
    "integers": (
        lambda s: Solution.exact(s)._replace(value=jnp.argsort(s, axis=1)),
        r"`value` of type int32, expected float32.*astype\(source\.dtype\)",
    ),
    "half": (
        partial(given, lambda s: s.astype(jnp.bfloat16)),
        "`value` of type bfloat16, expected float32",
    ),
    "scalar steps": (
        partial(given, lambda s: s, num_steps=7),
        r"`num_steps` of shape \(\).*jnp\.full\(len\(source\), num_steps\)",
    ),
    "scalar reason": (
        partial(given, lambda s: s, reason=jnp.zeros((), int)),
        r"`reason` of shape \(\), expected \(3,\)",
    ),
    "error of patches": (
        lambda s: Solution.exact(s)._replace(error=s[0]),
        r"`error` of shape \(16,\), expected \(3,\).*one number for each class",
    ),
    "float steps": (
        partial(given, lambda s: s, num_steps=jnp.zeros(3)),
        "`num_steps` of type float32, expected integers",
    ),
    "whether": (
        partial(given, lambda s: s, converged=jnp.zeros(3, int)),
        "`converged` of type int32, expected booleans",
    ),
    "no reason": (
        partial(given, lambda s: s, reason="because"),
        "`reason` = 'because', expected an array",
    ),
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_solve_returns_is_checked(what):
    returned, words = RETURNED[what]
    discrepancy = wrong(lambda self, source, affinity=None: returned(source))
    with pytest.raises(OptionError, match=words) as caught:
        check_solve(discrepancy, CLASSES, PATCHES)
    assert caught.value.code == "O10"
    assert "Wrong.solve returned" in str(caught.value)


def test_float64_is_refused_unless_it_was_given():
    with jax.enable_x64(True):
        ones = wrong(lambda self, s, a=None: Solution.exact(s + np.ones(s.shape)))
        with (
            pytest.raises(OptionError, match="float64, expected float32"),
            jax.numpy_dtype_promotion("standard"),
        ):
            check_solve(ones, CLASSES, PATCHES)
        wide = wrong(lambda self, s, a=None: Solution.exact(s.astype(a.dtype)))
        check_solve(wide, CLASSES, PATCHES, np.float64)


def thawed():
    @dataclass
    class Loose(Discrepancy):
        name: ClassVar[str] = "loose"
        solve = Mine.solve

    return Loose()


def plain():
    class Bare(Discrepancy):
        name = "bare"
        solve = Mine.solve

    return Bare()


@dataclass(frozen=True)
class Listed(Mine):
    """With an option that cannot be hashed."""

    weights: Any = field(default_factory=lambda: np.ones(3))


@dataclass(frozen=True)
class Named(Mine):
    """With names that are fields, as the error of ``dataclass`` suggests."""

    flat_names: Any = field(default_factory=lambda: {"steps": "my_steps"})


def nameless():
    @dataclass(frozen=True)
    class Nameless(Discrepancy):
        solve = Mine.solve

    return Nameless()


CLASSES_OF_PEOPLE = {
    "no dataclass": (plain, r"Bare is no dataclass; write `@dataclass\(frozen=True\)`"),
    "not frozen": (thawed, "Loose is a dataclass, but not frozen; write"),
    "an array as an option": (
        Listed,
        r"field `weights` of Listed is a ndarray, which cannot be hashed.*tuples",
    ),
    "names as a field": (
        Named,
        r"Named\.flat_names is a field.*`flat_names: ClassVar\[Mapping\[str, str\]\]",
    ),
    "no name": (nameless, "Nameless has no name; add a line such as"),
    "an empty name": (lambda: wrong(Mine.solve, name=" "), "Wrong.name is ' '"),
    "a number": (lambda: wrong(Mine.solve, name=3), "Wrong.name is 3; expected a text"),
    "fused": (lambda: wrong(Mine.solve, name="fused"), "choose another"),
    "a name that is taken": (
        lambda: wrong(Mine.solve, name="velocity"),
        "the name of MaximumVelocity; choose another",
    ),
    "flat names of no field": (
        lambda: wrong(Mine.solve, flat_names={"change": "mine_change"}),
        "flat_names names 'change', but the fields of Wrong are chance, steps",
    ),
    "flat names as a list": (
        lambda: wrong(Mine.solve, flat_names=["chance"]),
        r"Wrong\.flat_names is \['chance'\].*'steps': 'mine_steps'",
    ),
    "traced numbers of no field": (
        lambda: wrong(Mine.solve, traced=("speed",)),
        "traced names 'speed'",
    ),
    "a method": (
        lambda: wrong(Mine.solve, needs_affinity=lambda self: False),
        "needs_affinity is a method; expected True or False",
    ),
    "attempts": (lambda: wrong(Mine.solve, attempts=()), "attempts is ()"),
    "one argument": (
        lambda: wrong(lambda self, source: None),
        r"Wrong has `solve\(self, source\)`; expected `solve\(self, source, affinity",
    ),
    "three arguments": (
        lambda: wrong(lambda self, source, affinity, photo: None),
        r"solve\(self, source, affinity, photo\)",
    ),
}


@pytest.mark.parametrize("what", CLASSES_OF_PEOPLE)
def test_the_class_is_checked_when_it_is_chosen(what):
    make, words = CLASSES_OF_PEOPLE[what]
    with pytest.raises(OptionError, match=words) as caught:
        SegmenterConfig().with_options(discrepancy=make())
    assert caught.value.code == "O10"


def test_what_is_no_discrepancy_is_told_apart():
    class Alone:
        def solve(self, source, affinity=None):
            return source

    for given, words in (
        (Mine, r"Mine is a class; expected an object: Mine\(\)"),
        (Alone(), r"write `class Alone\(Discrepancy\)`"),
        ("path", "or give a name as `mode`"),
    ):
        with pytest.raises(OptionError, match=words) as caught:
            SegmenterConfig().with_options(discrepancy=given)
        assert caught.value.code == "O03"


def test_a_right_one_passes_and_is_traced_once_for_each_shape():
    calls = []

    def solve(self, source, affinity=None):
        calls.append(source.shape)
        return Solution.exact(source @ affinity)

    discrepancy = wrong(solve)
    require_usable(discrepancy)
    for patches in (16, 16, 25, 16):
        check_solve(discrepancy, CLASSES, patches)
    assert calls == [(3, 16), (3, 25)]


def test_the_built_in_ones_are_not_traced(monkeypatch):
    def solve(*_):
        raise AssertionError("it was traced")

    monkeypatch.setattr(OptimalPath, "solve", solve)
    monkeypatch.setattr(MaximumVelocity, "solve", solve)
    for each in (OptimalPath(), MaximumVelocity(), Fused()):
        require_usable(each)
        check_solve(each, CLASSES, PATCHES)


def test_one_that_is_fused_is_checked_by_its_own_name():
    turned = wrong(lambda self, s, a=None: Solution.exact(s)._replace(value=s.T))
    with pytest.raises(OptionError, match=r"O10.*Wrong\.solve returned `value`"):
        check_solve(Fused(turned, OptimalPath()), CLASSES, PATCHES)
    with pytest.raises(OptionError, match=r"O10.*Loose is a dataclass, but not"):
        require_usable(Fused(OptimalPath(), thawed()))


def test_attempts_are_checked_too():
    later = wrong(lambda self, s, a=None: s)
    first = wrong(Mine.solve, attempts=(Mine(), later))
    with pytest.raises(OptionError, match=r"O10.*returned an array"):
        check_solve(first, CLASSES, PATCHES)


def test_arrays_of_numpy_and_errors_with_a_code_pass():
    source = jnp.ones((CLASSES, PATCHES))
    status = np.zeros(3, np.int32), np.zeros(3, np.float32), np.ones(3, bool)
    found = solve_image(
        wrong(lambda self, s, a=None: Solution(s, *status, np.zeros(3, np.int32))),
        source,
        None,
    )
    assert all(isinstance(leaf, jax.Array) for leaf in found)
    told = OptionError("O01", "steps = 0")

    def refuse(self, source, affinity=None):
        raise told

    with pytest.raises(OptionError) as caught:
        solve_image(wrong(refuse), source, None)
    assert caught.value is told
