"""Importing the package has no side effects, and needs no torch."""

import ast
import importlib.util
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path


ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "errors": "",
    "files": "",
    "scenes": "",
    "work": "",
    "areas": "",
    "threads": "",
    "tuning": "",
    "cache": "errors files",
    "devices": "errors",
    "images": "areas errors files",
    "options": "errors",
    "templates": "errors",
    "tokens": "errors",
    "weights": "errors files",
    "ops": "areas options tuning",
    "solvers": "errors options tuning",
    "outputs": "errors files images",
    "models": "errors ops tuning weights work",
    "prompts": "errors outputs templates tokens",
    "cost": "models solvers tuning work",
    "empty_prompt": "cache errors files models prompts weights",
    "hub": "empty_prompt errors models weights",
    "logits": "cost errors models ops options",
    "attention": "cost empty_prompt errors hub models options tuning weights",
    "config": "attention errors files logits ops options solvers",
    "pairs": "config errors scenes",
    "pipeline": (
        "areas attention cache config errors images logits ops prompts solvers "
        "templates tuning"
    ),
    "small_world": "pairs pipeline prompts",
    "model_info": "",
    "segmentation": (
        "config errors images model_info outputs pipeline prompts solvers"
    ),
    "own_logits": "config images pipeline prompts segmentation solvers",
    "points": "config errors images ops pipeline prompts solvers",
    "kept": (
        "config images model_info pairs pipeline points prompts segmentation "
        "small_world"
    ),
    "stream": (
        "config errors images model_info pairs pipeline prompts segmentation "
        "small_world threads tuning"
    ),
    "loading": "attention cache devices hub logits model_info pairs pipeline",
    "segmenter": (
        "config devices errors images kept loading model_info pairs pipeline points "
        "prompts segmentation solvers stream templates"
    ),
    "stablehlo": (
        "config errors files images logits ops pipeline prompts segmenter solvers "
        "tuning"
    ),
    "ray_data": "errors outputs prompts segmenter stream",
    "": "config errors ops own_logits points segmentation segmenter solvers stream",
    "bench": (
        "attention config cost errors files images logits models ops pairs pipeline "
        "prompts scenes segmenter solvers stream tuning weights work"
    ),
    "runs": "errors files images outputs prompts segmentation segmenter stream threads",
    "evaluation.metrics": "",
    "evaluation.datasets": (
        "errors evaluation.metrics files images outputs prompts scenes"
    ),
    "evaluation.sweeps": (
        "attention config devices errors evaluation.datasets evaluation.metrics hub "
        "loading models ops outputs pairs pipeline prompts runs solvers threads"
    ),
    "evaluation.reports": (
        "config errors evaluation.datasets evaluation.metrics evaluation.sweeps files "
        "outputs runs"
    ),
    "evaluation": (
        "bench config cost errors evaluation.datasets evaluation.metrics "
        "evaluation.reports evaluation.sweeps files pipeline prompts runs scenes "
        "segmenter solvers"
    ),
    "serve": (
        "config devices errors files images kept options outputs pipeline points "
        "prompts scenes segmentation segmenter"
    ),
    "demo": (
        "attention config empty_prompt errors evaluation.datasets evaluation.metrics "
        "evaluation.sweeps files images models outputs pairs pipeline prompts scenes "
        "segmentation segmenter solvers templates weights"
    ),
    "cli": (
        "scenes evaluation.metrics "
        "attention bench cache config devices errors evaluation evaluation.datasets "
        "evaluation.reports evaluation.sweeps files hub images options outputs pairs "
        "pipeline prompts runs segmenter serve solvers stablehlo tuning"
    ),
    "__main__": "cli",
}
"""The rooms of dslo_jax from the ground up, and which of them each may import.

A room is a folder or a file next to the folders; "" is ``dslo_jax`` itself. The folders
of ``evaluation`` are rooms of their own.
"""


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
    drawing = ("scenes._canvas", "scenes._textures", "demo.sheet", "demo.components")
    assert unchecked == {f"dslo_jax.{name}" for name in drawing}


def _room(module):
    """The row of ``MAY_IMPORT`` that a module belongs to."""
    _, *parts = module.split(".")
    inner = ".".join(parts[:2])
    return inner if inner in MAY_IMPORT else ".".join(parts[:1])


def _imported(path, modules):
    """The modules of dslo_jax that a file imports, at its top or in a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            names = (f"{node.module}.{each.name}" for each in node.names)
            yield from (name if name in modules else node.module for name in names)


def test_rooms_import_what_the_table_allows_and_no_cycle_can_arise():
    modules = {}
    for path in (ROOT / "dslo_jax").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(p for p in parts if p != "__init__")] = path
    found = {
        (_room(module), _room(other))
        for module, path in modules.items()
        for other in _imported(path, modules)
    }
    allowed = {(room, each) for room, of in MAY_IMPORT.items() for each in of.split()}
    assert {_room(module) for module in modules} == set(MAY_IMPORT)
    assert {(room, each) for room, each in found - allowed if room != each} == set()
    # A room imports none but those above it in the table: so there is no cycle.
    rows = list(MAY_IMPORT)
    for room, each in allowed:
        assert rows.index(each) < rows.index(room), (room, each)


def test_no_process_is_forked_and_no_clock_that_jumps_is_read():
    """JAX has threads, which a fork does not copy; wall clocks are set while we run."""
    refused = {"os.fork", "os.forkpty", "time.time", "time.time_ns"}
    for path in (ROOT / "dslo_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in refused, (path, node.lineno)
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "multiprocessing" not in ast.unparse(node), (path, node.lineno)
