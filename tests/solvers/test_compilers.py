"""The solvers through the compilers for TPUs and GPUs; nothing runs.

They need the packages of the extras ``tpu-aot`` and ``gpu-aot``, in one environment or
in two.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dslo_jax.bench.compile.findings import find_collectives
from dslo_jax.bench.compile.hlo import read_program
from dslo_jax.bench.compile.targets import CHIPS, missing_packages, topology
from dslo_jax.cost import path_bytes, velocity_bytes
from dslo_jax.solvers import maximum_velocity, optimal_path


pytestmark = pytest.mark.slow

PATCHES = 1024
AFFINITY = 4 * PATCHES**2


@pytest.fixture(params=["v5e", "h100"])
def chip(request):
    missing = missing_packages(CHIPS[request.param])
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    return request.param


def compiled(chip, solve, classes, images=1, dtype=jnp.float32, columns=1):
    """The program of a chip, or of several that divide the columns of the affinity."""
    mesh = Mesh(np.asarray(topology(chip, columns)), ("columns",))
    whole = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec(None, None, "columns"))
    source = jax.ShapeDtypeStruct(
        (images, classes, PATCHES), jnp.float32, sharding=whole
    )
    affinity = jax.ShapeDtypeStruct((images, PATCHES, PATCHES), dtype, sharding=divided)
    return jax.jit(jax.vmap(solve)).lower(source, affinity).compile()


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(1, jnp.float32), (8, jnp.float32), (8, jnp.bfloat16), (40, jnp.float32)],
)
def test_a_velocity_holds_no_copy_of_an_affinity(chip, classes, dtype, images):
    program = compiled(chip, maximum_velocity, classes, images, dtype)
    found = program.memory_analysis().temp_size_in_bytes
    predicted = velocity_bytes(classes, PATCHES, images=images, platform="gpu")
    assert found < 0.5 * jnp.dtype(dtype).itemsize * PATCHES**2 * images
    assert found < 3 * predicted + 2**20


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("options", [{}, {"support": 512}], ids=str)
def test_a_path_holds_what_is_predicted(chip, options, images):
    solve = partial(optimal_path, **options, domain="kernel")
    found = compiled(chip, solve, 8, images).memory_analysis().temp_size_in_bytes
    assert found < 2 * path_bytes(8, PATCHES, **options, images=images, platform="gpu")


@pytest.mark.parametrize(
    "solve",
    [maximum_velocity, partial(optimal_path, support=512, domain="kernel")],
    ids=["velocity", "path"],
)
def test_chips_that_divide_the_columns_exchange_states_alone(chip, solve):
    program = read_program(compiled(chip, solve, 8, columns=4).as_text())
    found = find_collectives(program, dict.fromkeys(program.computations, 1.0))
    assert found
    for collective in found:
        assert collective.bytes <= 3 * 4 * 8 * PATCHES, collective
