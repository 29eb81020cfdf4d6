"""Evaluate on several devices, which a CPU pretends to have.

python many_devices.py FOLDER DEVICES ... -- OPTIONS ...: one evaluation for each number
of devices, with these options of ``dslo eval``. Prints JSON: of each, the digest of
metrics.json, the number of programs, and what the programs exchange. With --waitless
before, batches run without waiting, as on GPUs and TPUs.

python many_devices.py --solvers: the largest exchange of the solvers at full size,
which are compiled for a mesh and not run.

python many_devices.py --process INDEX COUNT PORT FOLDER -- OPTIONS ...: one process of
several under jax.distributed, which takes its shard with all devices of its own.
"""

import hashlib
import json
import math
import os
import re
import sys
from itertools import groupby
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from dslo_jax import SegmenterConfig, cli, tuning
from dslo_jax.devices import find_device
from dslo_jax.pipeline import num_compilations, place, programs
from dslo_jax.pipeline.stages import watch
from dslo_jax.solvers import Counts


_EXCHANGE = re.compile(
    r"= (?P<shapes>.*?) (all-reduce|all-gather|all-to-all|collective-permute|"
    r"reduce-scatter|collective-broadcast)(-start)?\("
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8}


def num_bytes(shapes):
    """Bytes of arrays as a compiled program writes them: ``(f32[2,64], pred[8])``."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    return sum(
        _BYTES.get(kind, 4) * math.prod(map(int, filter(None, sizes.split(","))))
        for kind, sizes in found
    )


def exchanged(program):
    """Bytes of each collective operation of a compiled program."""
    matches = map(_EXCHANGE.search, program.as_text().splitlines())
    return [num_bytes(match["shapes"]) for match in matches if match]


def evaluate(out, devices, options):
    """One evaluation, and what is to be told of it."""
    before = num_compilations()
    with watch() as calls:
        code = cli.main(["eval", *options, "--devices", devices, "--out", str(out)])
    content = (out / "metrics.json").read_bytes()
    largest = {}
    for call in calls:
        found = [0, largest.get(call.stage, 0), *exchanged(call.program)]
        largest[call.stage] = max(found)
    return {
        "code": code,
        "digest": hashlib.sha256(content).hexdigest(),
        "programs": num_compilations() - before,
        "exchanged": largest,
    }


def compile_solvers():
    """The largest exchange of each solver at full size, in bytes.

    24 classes are the smallest number that a solver is compiled for with 21 classes.
    """
    largest = {}
    for patches, shape in ((4096, (2, 2)), (4096, (4, 1)), (16384, (1, 4))):
        placement = place(np.array(jax.devices()[:4]).reshape(shape))
        batch, columns = shape[0], patches == 16384
        mesh, floats = placement.mesh, jnp.float32

        def array(sizes, *axes, mesh=mesh, floats=floats):
            sharding = NamedSharding(mesh, PartitionSpec("data", *axes))
            return jax.ShapeDtypeStruct(sizes, floats, sharding=sharding)

        source = array((batch, 24, patches), *(() if columns else ("class",)))
        affinity = array(
            (batch, patches, patches), *((None, "class") if columns else ())
        )
        for mode in ("path", "velocity"):
            discrepancy = SegmenterConfig.of(mode=mode).discrepancy
            if discrepancy.wants_counts:
                discrepancy = discrepancy.fitted(
                    Counts(patches // 4, patches, 24, patches, 1, "gpu")
                )
            options = {"discrepancy": discrepancy.attempts[0]}
            lowered = programs.DISCREPANCY.lower((source, affinity), options)
            name = f"{mode}, {patches} patches, {shape[0]}x{shape[1]}"
            largest[name] = max([0, *exchanged(lowered.compile())])
    return largest


def take_shard(index, count, port, out, options):
    """Evaluate a shard under jax.distributed, and tell the devices of this process."""
    jax.distributed.initialize(f"localhost:{port}", count, index)
    words = ["eval", *options, "--shard", "auto", "--devices", "all", "--out", out]
    code = cli.main(words)
    ids = [find_device(name).id for name in ("auto", "cpu:0", "cpu:1")]
    return {"code": code, "devices": len(jax.devices()), "ids": ids}


def main(arguments):
    if arguments == ["--solvers"]:
        json.dump(compile_solvers(), sys.stdout)
        return
    before, options = (
        list(group) for word, group in groupby(arguments, "--".__ne__) if word
    )
    if before[0] == "--process":
        index, count, port = map(int, before[1:4])
        told = take_shard(index, count, port, before[4], options)
    else:
        if before[0] == "--waitless":
            tuning.HOST_DECIDES_ON = ()
            before = before[1:]
        folder, *numbers = before
        told = {
            devices: evaluate(Path(folder) / devices, devices, options)
            for devices in numbers
        }
    json.dump(told, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # processes of jax.distributed need not wait for each other


if __name__ == "__main__":
    main(sys.argv[1:])
