"""Streams, devices and settings around the commands: a coded error or a normal run."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from PIL import Image

from dslo_jax import Segmenter, SegmenterConfig, cli
from dslo_jax.devices import device_error
from dslo_jax.pipeline.stages import Clock, Stage, Uncompiled, watch


def run_python(code, *arguments, **surroundings):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **surroundings},
    )


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), "D01", "MemoryError"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"), "D01", "9 GB"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "D01", "--batch|fewer"),
        (OSError(errno.EMFILE, "Too many open files"), "D03", "ulimit -n"),
        (RuntimeError("can't start new thread"), "D03", "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Try again"), "D03", "ulimit -u"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_errors_of_the_machine_have_codes(error, code, words):
    found = device_error(error)
    assert found is not None
    assert found.code == code
    assert found.exit_code == 5
    assert re.search(words, str(found))


def test_other_errors_are_not_taken_for_those_of_the_machine():
    for error in (ValueError("x"), RuntimeError("x"), OSError(errno.ENOENT, "x")):
        assert device_error(error) is None


def test_a_library_that_says_no_more_is_believed_only_below_a_limit(monkeypatch):
    error = RuntimeError("INTERNAL: YNNPACK operation failed: error")
    for limit, code in ((resource.RLIM_INFINITY, None), (2**30, "D01")):
        monkeypatch.setattr(resource, "getrlimit", lambda _, at=limit: (at, at))
        found = device_error(error)
        assert (found and found.code) == code


def test_a_backend_that_is_not_here(photo):
    code = """
        import sys
        import jax
        from dslo_jax import cli
        for platform in ("cuda", "gpu", "nonsense"):
            jax.config.update("jax_platforms", platform)
            segment = ["segment", sys.argv[1], "--model", "demo", "--classes", "a, b"]
            for command in ([*segment, "--out", sys.argv[2]], ["bench", "solvers"]):
                print(platform, cli.main(command))
    """
    run = run_python(code, photo, photo.parent / "out")
    assert run.stdout.split() == [
        word for name in ("cuda", "gpu", "nonsense") for word in [name, "5"] * 2
    ], run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 6
    for line in errors:
        assert "[D02]" in line
        assert f"jax {jax.__version__}, jaxlib" in line
        assert "dslo-jax[cuda]" in line
        assert "JAX_PLATFORMS=" in line
    assert "Traceback" not in run.stderr


STREAMS = """
    import json, os, sys
    from dslo_jax import cli

    def unread(*numbers):
        reading, writing = os.pipe()
        os.close(reading)
        for number in numbers:
            os.dup2(writing, number)

    def full(*numbers):
        for number in numbers:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)

    def closed(*numbers):
        for number in numbers:
            os.close(number)

    saved, codes = [os.dup(number) for number in range(3)], []
    for change in (closed, unread, full):
        for numbers in ((2,), (1,), (1, 2)):
            for words in sys.argv[2:]:
                change(*numbers)
                code = cli.main(words.split())
                codes.append([change.__name__, numbers, words, code])
                if len(codes) < 9 * len(sys.argv[2:]):
                    for number, usual in enumerate(saved):
                        os.dup2(usual, number)
    with open(sys.argv[1], "w") as file:
        json.dump(codes, file)
    sys.exit(code)  # while both streams are full
"""
COMMANDS = {  # the streams that a command writes, and its usual exit code
    "--help": ({1}, 0),
    "weights": ({1, 2}, 0),
    "weights nothing": ({2}, 4),
    "weights --help": ({1}, 0),  # written by the option parser
    "weights --nothing": ({2}, 2),
    "": ({2}, 2),
}


def test_streams_that_nobody_reads_or_are_full_or_closed(tmp_path):
    run = run_python(STREAMS, tmp_path / "codes.json", *COMMANDS)
    assert run.returncode == 6, run.stderr
    codes = json.loads((tmp_path / "codes.json").read_text())
    assert len(codes) == 3 * 3 * len(COMMANDS)
    for change, numbers, command, code in codes:
        streams, usual = COMMANDS[command]
        broken = streams & set(numbers) and change != "closed"
        expected = {"unread": 141, "full": 6}[change] if broken else usual
        assert code == expected, (change, numbers, command)
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr


@pytest.mark.slow
def test_a_reader_that_ends_early(photo):
    segment = f"segment {photo} --model demo --classes a,b --out {photo.parent / 'out'}"
    dslo = f"{sys.executable} -m dslo_jax {segment}"
    command = f"({dslo} 2>&1; echo $? >{photo.parent / 'code'}) | head -1"
    subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert (photo.parent / "code").read_text() == "141\n"


@pytest.mark.slow
def test_settings_of_jax_and_the_system_change_nothing(checkpoint, photo, tmp_path):
    """All at once, because each process takes seconds."""
    arguments = ["segment", str(photo), "--model", str(checkpoint), "--classes", "a, b"]
    arguments += [
        "--affinity-size",
        "64",
        "--short-side",
        "64",
        "--templates",
        "single",
    ]
    assert cli.main([*arguments, "--out", str(tmp_path / "usual")]) == 0
    surroundings = {
        "JAX_ENABLE_X64": "1",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEBUG_NANS": "1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "TERM": "dumb",
        "OMP_NUM_THREADS": "0",
        "TMPDIR": "/nonexistent",
        "DSLO_CACHE": "/dev/null/cache",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_FLAGS": os.environ["XLA_FLAGS"],
    }
    limited = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh"]
    dslo = [sys.executable, "-m", "dslo_jax", *arguments]
    run = subprocess.run(
        [*limited, *dslo, "--out", tmp_path / "other"],
        capture_output=True,
        text=True,
        env=surroundings,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("the cache is not used") == 1
    labels = [
        (tmp_path / name / "photo.png" / "labels.png").read_bytes()
        for name in ("usual", "other")
    ]
    assert labels[0] == labels[1]


def test_where_torch_is_not_installed_a_photo_is_segmented_without_advice(
    photo, tmp_path
):
    """Nothing imports torch, and only our own lines are printed."""
    code = """
        import importlib.util
        import sys
        find = importlib.util.find_spec
        importlib.util.find_spec = (
            lambda name, *more: None if name == "torch" else find(name, *more)
        )

        class Absent:
            def find_spec(self, name, *more):
                if name == "torch":
                    raise ModuleNotFoundError("No module named 'torch'", name=name)

        sys.meta_path.insert(0, Absent())
        from dslo_jax import cli
        sys.exit(cli.main(sys.argv[1:]))
    """
    options = ("--short-side", 64, "--affinity-size", 64, "--templates", "single")
    run = run_python(
        code,
        *("segment", photo, "--model", "demo", "--classes", "sky, sea", *options),
        *("--out", tmp_path / "out"),
    )
    assert run.returncode == 0, run.stderr
    ours = ("[0/1] ", "  note: ")
    assert [line for line in run.stderr.splitlines() if not line.startswith(ours)] == []
    with Image.open(tmp_path / "out" / "photo.png" / "labels.png") as labels:
        assert labels.size == (70, 50)


@pytest.mark.slow
def test_photos_are_segmented_without_compilation(checkpoint):
    config = SegmenterConfig.of(
        mode="logits", short_side=32, templates="single", upsampling="bilinear"
    )
    segmenter = Segmenter.from_pretrained(checkpoint, config=config)
    photo = np.random.default_rng(1).integers(0, 256, (20, 24, 3), np.uint8)
    compiled = segmenter(photo, ["cat", "sofa"])
    with jax.disable_jit(), watch() as calls:
        debugged = segmenter(photo, ["cat", "sofa"])
    assert {type(call.program) for call in calls} == {Uncompiled}
    assert (debugged.labels == compiled.labels).mean() > 0.99


def test_a_stage_without_compilation_runs_its_function_on_arrays_with_values():
    seen = []

    def double(x, *, times):
        seen.append(not isinstance(x, jax.core.Tracer))
        return x * times

    stage, array = Stage("double", double), jax.numpy.ones(3)
    stage(Clock(), array, times=2)
    with jax.disable_jit(), watch() as calls:
        assert stage(Clock(), array, times=2).tolist() == [2, 2, 2]
    stage(Clock(), array, times=2)
    assert seen == [False, True]  # and the program is still there
    assert stage.num_compilations == 1
    assert calls[0].arguments[0].shape == (3,)
    assert calls[0].flops == 0
