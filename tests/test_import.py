"""Importing the package has no side effects, and needs no torch."""

import importlib.util
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path


ROOT = Path(__file__).parents[1]


def run_python(code):
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_importing_everything_starts_no_backend_and_imports_no_torch():
    run_python("""
        import pkgutil, importlib, sys
        import dslo_jax
        for module in pkgutil.walk_packages(dslo_jax.__path__, "dslo_jax."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        from jax._src import xla_bridge
        assert not xla_bridge._backends, xla_bridge._backends
        heavy = {"torch", "transformers", "diffusers"} & set(sys.modules)
        assert not heavy, heavy
    """)


def test_main_job_runs_where_torch_is_not_installed():
    out = run_python("""
        import sys
        sys.modules["torch"] = None  # as if it were not installed
        import numpy as np
        from dslo_jax import Segmenter, SegmenterConfig

        config = SegmenterConfig.of(affinity_size=64, short_side=64)
        segmenter = Segmenter.from_pretrained("demo", config=config)
        photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
        print(segmenter(photo, ["cat", "sofa"]).labels.shape)
    """)
    assert out.strip() == "(50, 70)"


def test_shapes_are_enforced_in_every_room_that_states_some():
    """All modules with shapes but those that draw; and no name that is gone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    words = project["tool"]["pytest"]["ini_options"]["addopts"].replace("\\\n", "")
    (listed,) = [word for word in words.split() if "jaxtyping-packages" in word]
    *names, checker = listed.partition("=")[2].split(",")
    assert checker == "beartype.beartype"
    assert [name for name in names if importlib.util.find_spec(name) is None] == []
    unchecked = set()
    for path in (ROOT / "dslo_jax").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        stating = "from jaxtyping import" in path.read_text()
        if stating and not any(f"{module}.".startswith(f"{n}.") for n in names):
            unchecked.add(module)
    drawing = ("scenes._canvas", "scenes._textures", "demo.sheet")
    assert unchecked == {f"dslo_jax.{name}" for name in drawing}
