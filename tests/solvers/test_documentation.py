import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from dslo_jax import solvers
from dslo_jax.solvers import Reason


MODULES = sorted(path.stem for path in Path(solvers.__path__[0]).glob("[a-z]*.py"))
WITH_EXAMPLES = {
    *("sinkhorn", "path", "velocity", "balancing", "divergence"),
    *("iteration", "registry", "solution"),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name):
    module = importlib.import_module(f"dslo_jax.solvers.{name}")
    results = doctest.testmod(module)
    assert results.failed == 0
    assert (results.attempted > 0) == (name in WITH_EXAMPLES)


PAGES = Path(__file__).parents[2] / "docs" / "solvers"


def run_examples(page):
    """Names that the code of a page leaves behind."""
    text = (PAGES / page).read_text()
    scope = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(example, page, "exec"), scope)
    return scope


def test_the_examples_of_use_run(capsys):
    """The page is read by people with an affinity of their own; it must not rot."""
    scope = run_examples("use.md")
    assert scope["labels"].shape == (256,)
    assert scope["paths"].converged.all()
    np.testing.assert_allclose(scope["same_paths"].path, scope["paths"].path, rtol=1e-6)
    assert scope["velocities"].converged.all()
    assert "The error is at most the tolerance." in capsys.readouterr().out


def test_the_example_of_tuning_runs(capsys):
    assert run_examples("tuning.md")["row"]["error"] < 1e-5


def test_every_reason_is_explained():
    text = (PAGES / "use.md").read_text()
    assert [reason.name for reason in Reason if f"`{reason.name}`" not in text] == []
