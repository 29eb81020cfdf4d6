import re
from pathlib import Path

import numpy as np


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
