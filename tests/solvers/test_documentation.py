import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from dslo_jax import solvers


MODULES = sorted(path.stem for path in Path(solvers.__path__[0]).glob("[a-z]*.py"))
WITH_EXAMPLES = {
    *("sinkhorn", "path", "velocity", "balancing", "divergence"),
    *("registry", "solution"),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name):
    module = importlib.import_module(f"dslo_jax.solvers.{name}")
    results = doctest.testmod(module)
    assert results.failed == 0
    assert (results.attempted > 0) == (name in WITH_EXAMPLES)


def test_the_examples_run(capsys):
    """The page is read by people with an affinity of their own; it must not rot."""
    page = Path(__file__).parents[2] / "docs" / "solvers.md"
    examples = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    scope = {}
    for example in examples:
        exec(compile(example, str(page), "exec"), scope)
    assert scope["labels"].shape == (256,)
    assert scope["paths"].converged.all()
    np.testing.assert_allclose(scope["same_paths"].path, scope["paths"].path, rtol=1e-6)
    assert scope["velocities"].converged.all()
