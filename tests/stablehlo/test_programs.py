"""Exported programs: the numbers of the package, also where it is not installed."""

import functools
import json
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jaxlib._jax
import numpy as np
import pytest
from jax import export
from jaxlib import xla_client

from dslo_jax import Segmenter, scenes, solvers, stablehlo
from dslo_jax.errors import OptionError, OutputError


NAMES = ["sky", "sea", "house", ("grass", "lawn")]
QUICK = ("velocity", "kl", "logits")


def inputs(classes=3, patches=16, batch=2):
    rng = np.random.default_rng(0)
    source = rng.random((batch, classes, patches), np.float32)
    affinity = rng.random((batch, patches, patches), np.float32) ** 4
    source /= source.sum(axis=-1, keepdims=True)
    return {"source": source, "affinity": affinity}


def stored(program):
    """The program as another process reads it."""
    return export.deserialize(bytearray(program.exported.serialize()))


def run_elsewhere(code):
    """Run code in a process that has JAX, NumPy and safetensors only."""
    absent = "dslo_jax", "flax", "jaxtyping", "transformers", "torch", "PIL"
    block = f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    finished = subprocess.run(
        [sys.executable, "-c", block + textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr


@functools.cache
def made(name):
    """The program of a discrepancy for two photos, exported once."""
    return make(solvers.discrepancy_of(name), 3, 16, batch=2)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in solvers.DISCREPANCIES
    ],
)
def test_a_discrepancy_gives_the_same_maps_and_says_what_it_could_not_solve(name):
    discrepancy = solvers.discrepancy_of(name)
    given = inputs()
    given["source"][1, 2, 3] = np.nan
    program = stored(made(name))
    assert program.platforms == ("cpu", "cuda", "tpu")
    read = given if discrepancy.needs_affinity else {"source": given["source"]}
    found = program.call({}, read)
    expected = jax.jit(jax.vmap(discrepancy.solve))(*given.values())
    np.testing.assert_allclose(found["maps"], expected.value, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["reason"], expected.reason)
    assert found["reason"][1, 2] == solvers.Reason.SOURCE_NOT_FINITE
    assert np.isnan(found["error"][1, 2])
    assert not found["maps"][1, 2].any()
    assert np.isfinite(found["maps"]).all()


@pytest.mark.slow
def test_a_class_that_the_kernel_cannot_solve_is_solved_in_the_log_domain():
    path = solvers.OptimalPath(epsilon=0.001)
    given = inputs(batch=1)
    program = stablehlo.export_discrepancy(path, 3, 16, platforms=["cpu"])
    found = program.exported.call({}, given)
    expected = path.solve(given["source"][0], given["affinity"][0])
    assert np.isfinite(found["error"]).all()
    np.testing.assert_allclose(found["maps"][0], expected.value, rtol=1e-4)


@functools.cache
def known_maps():
    """What the program of the velocity makes of ``inputs()``."""
    return made("velocity").exported.call({}, inputs())["maps"]


def test_the_description_tells_how_to_run_it_without_this_package(tmp_path):
    program = made("velocity")
    folder = program.save(tmp_path / "program")
    np.savez(tmp_path / "known.npz", maps=known_maps(), **inputs())
    run_elsewhere(f"""
        import json, os
        import numpy as np
        os.chdir({str(folder)!r})
        known = np.load("../known.npz")
        source, affinity = known["source"], known["affinity"]
        told = json.load(open("program.json"))
        exec(told["run"])
        np.testing.assert_array_equal(outputs["maps"], known["maps"])
        assert sorted(outputs) == sorted(told["outputs"])
        for name, array in outputs.items():
            assert list(array.shape) == told["outputs"][name]["shape"]
    """)
    told = json.loads((folder / "program.json").read_text())
    assert told["options"]["threshold"] == 0.3
    assert told["inputs"]["affinity"]["shape"] == [2, 16, 16]
    assert told["reasons"]["6"] == solvers.Reason.SOURCE_NOT_FINITE.sentence
    assert set(told["files"].values()) == {"program.jax", "program.mlirbc"}
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    assert str(Path(__file__).parents[2]).encode() not in held  # no paths of ours


def test_the_stablehlo_runs_without_jax_export(tmp_path):
    """By the compiler alone: the arguments are those that the description lists."""
    folder = made("velocity").save(tmp_path / "program")
    told = json.loads((folder / "program.json").read_text())
    given = inputs()
    known = {f"inputs/{name}": array for name, array in given.items()}
    known["_platform_index"] = np.int32(told["platforms"].index("cpu"))
    cpu = jax.devices("cpu")[0]
    loaded = cpu.client.compile_and_load(
        (folder / "program.mlirbc").read_bytes(),
        jaxlib._jax.DeviceList((cpu,)),
        xla_client.CompileOptions(),
    )
    arguments = [jax.device_put(known[name]) for name in told["stablehlo_arguments"]]
    found = dict(zip(told["stablehlo_results"], loaded.execute(arguments), strict=True))
    np.testing.assert_allclose(np.asarray(found["maps"]), known_maps(), rtol=1e-6)


@pytest.fixture(scope="module")
def whole():
    """A program of the whole step, the cheapest one, and its segmenter."""
    segmenter = Segmenter.from_pretrained("demo", mode="logits")
    program = stablehlo.export_segmenter(
        segmenter,
        NAMES,
        (75, 110),
        batch=2,
        platforms=["cpu"],
        short_side=64,
        templates="single",
        early_rejection=True,
    )
    return program, segmenter


def photos(size, count=2):
    return np.stack(
        [scenes.draw_scene(seed, size=size).pixels for seed in range(9, 9 + count)]
    )


def test_labels_of_the_whole_step_are_those_of_the_segmenter(whole):
    program, segmenter = whole
    given = photos((75, 110))
    found = stored(program).call(
        program.parameters, {**program.inputs, "pixels": given}
    )
    for index, photo in enumerate(given):
        result = segmenter(photo, NAMES, short_side=64, templates="single")
        np.testing.assert_array_equal(found["labels"][index], result.labels)
        rejected = [report.rejected for report in result.reports]
        np.testing.assert_array_equal(found["reason"][index] == -1, rejected)
        np.testing.assert_allclose(found["maps"][index], result.discrepancy, atol=1e-5)


def test_only_the_parameters_that_are_read_are_kept(whole):
    program, segmenter = whole
    assert not any("text_model" in name for name in program.parameters)
    kept = sum(leaf.size for leaf in program.parameters.values())
    every = jax.tree.leaves(segmenter.networks.logits.state)
    assert kept < sum(leaf.size for leaf in every)


def test_what_is_not_finite_never_becomes_a_label(whole):
    program, _ = whole
    text = program.inputs["text"].copy()
    text[1, 0] = np.nan
    given = {**program.inputs, "pixels": photos((75, 110)), "text": text}
    found = program.exported.call(program.parameters, given)
    assert (found["labels"] == -1).all()
    assert not found["tied"].any()
    assert (found["reason"][:, 1] == solvers.Reason.SOURCE_NOT_FINITE).all()
    assert np.isnan(found["error"][:, 1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mode": "path", "upsampling": "bilinear"}])
def test_the_whole_step_runs_where_this_package_is_not(tmp_path, options):
    size = 128, 160
    segmenter = Segmenter.from_pretrained("demo")
    program = stablehlo.export_segmenter(segmenter, NAMES, size, batch=2, **options)
    folder = program.save(tmp_path / "program")
    given = photos(size)
    labels = [segmenter(photo, NAMES, **options).labels for photo in given]
    np.savez(tmp_path / "known.npz", pixels=given, labels=labels)
    run_elsewhere(f"""
        import json, os
        import numpy as np
        os.chdir({str(folder)!r})
        known = np.load("../known.npz")
        pixels = known["pixels"]
        told = json.load(open("program.json"))
        assert told["inputs"]["pixels"]["shape"] == list(pixels.shape)
        exec(told["run"])
        np.testing.assert_array_equal(outputs["labels"], known["labels"])
    """)


@dataclass(frozen=True)
class AsksTheHost(solvers.Discrepancy):
    """A discrepancy that no program can hold."""

    name: ClassVar[str] = "asks"

    def solve(self, source, affinity=None):
        jax.debug.print("{}", source)
        return solvers.Solution.exact(source)


def test_what_cannot_be_exported_is_refused(tmp_path, whole):
    _, segmenter = whole
    kl = solvers.Divergence()
    cases = [
        (
            "platforms = 'cpu, metal'",
            lambda: make(kl, 3, 16, platforms=["cpu", "metal"]),
        ),
        ("platforms = ''", lambda: make(kl, 3, 16, platforms=[])),
        ("patches = 0", lambda: make(kl, 3, 0)),
        ("dtype = 'int8'", lambda: make(kl, 3, 16, dtype="int8")),
        ("code outside the program", lambda: make(AsksTheHost(), 3, 16)),
        ("height = 1", lambda: of_photos(segmenter, NAMES, (1, 20))),
        ("size = 8191x8191", lambda: of_photos(segmenter, NAMES, (8191, 8191))),
    ]
    for words, function in cases:
        with pytest.raises(OptionError, match=words):
            function()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files"):
        make(kl, 3, 16).save(tmp_path)


make = stablehlo.export_discrepancy
of_photos = stablehlo.export_segmenter
