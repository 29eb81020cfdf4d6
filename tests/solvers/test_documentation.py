import re
from pathlib import Path


def test_the_example_runs(capsys):
    """The page is read by people with an affinity of their own; it must not rot."""
    page = Path(__file__).parents[2] / "docs" / "solvers.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    scope = {}
    exec(compile(example, str(page), "exec"), scope)
    assert scope["labels"].shape == (256,)
    assert scope["paths"].converged.all()
    assert scope["velocities"].converged.all()
