"""Reading of compiled programs: turns of loops, amounts, findings, estimates."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dslo_jax.bench.compile.amounts import amount_of
from dslo_jax.bench.compile.estimate import add_up, estimate
from dslo_jax.bench.compile.executions import Turns, count_executions
from dslo_jax.bench.compile.findings import (
    find_arrays,
    find_collectives,
    find_host_steps,
    find_memory,
    find_parameter_moves,
    find_rounded_products,
)
from dslo_jax.bench.compile.hlo import read_program
from dslo_jax.bench.compile.targets import CHIPS


TPU = (Path(__file__).parent / "tpu_loop.hlo.txt").read_text()
"""A loop as the compiler of TPUs writes it, with a copy and a product in its body."""

BYTES = 4 * 256 * 256


def tpu_program(direction="LT", limit=5):
    text = TPU.replace("DIRECTION", direction).replace("LIMIT", str(limit))
    return read_program(text)


def compiled(function, *shapes, dtype=jnp.float32):
    given = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(function).lower(*given).compile()


def counted(function, *shapes, dtype=jnp.float32):
    """Totals of a program for this CPU, with the peaks of any chip."""
    program = read_program(compiled(function, *shapes, dtype=dtype).as_text())
    return add_up(program, count_executions(program).times, CHIPS["h100"])


def test_a_loop_that_counts_to_a_constant_runs_so_often():
    program = tpu_program()
    runs = count_executions(program, [Turns("_chain.py:run", 12.0)])
    (loop,) = runs.loops
    assert (loop.turns, loop.origin) == (5, "counted")
    assert runs.times["body"] == 5
    assert runs.times["condition"] == 6


def test_a_loop_that_depends_on_data_runs_as_often_as_its_function_is_assumed_to():
    runs = count_executions(tpu_program("GT"), [Turns("_chain.py:run", 12.0)])
    assert runs.loops[0] == ("_chain.py:run", 12, 1, "assumed")
    (loop,) = count_executions(tpu_program("GT")).loops
    assert (loop.turns, loop.origin) == (1, "unknown")
    assert loop.where == "solvers/_loop.py:163 _iterate"


def test_cycles_of_a_body_count_in_every_turn():
    program = tpu_program()
    totals = add_up(program, count_executions(program).times, CHIPS["v5e"])
    assert totals.cycles == 5 * (500 + 1000)
    assert totals.flops == 5 * 2 * 256**3
    found = estimate(totals, 0.0, CHIPS["v5e"])
    assert found.seconds == pytest.approx(7500 / 1.5e9)
    assert found.how == "7.5e+03 cycles at 1.5 GHz"


def test_a_copy_is_a_finding_and_prefetching_is_none():
    program = tpu_program()
    times = count_executions(program).times

    def find(known_bytes):
        return find_arrays(
            program,
            times,
            lambda array: array.size >= 256**2,
            only_moves=True,
            known_bytes=known_bytes,
        )

    (copy,) = find(0.0)
    assert (copy.what, copy.times, copy.bytes, copy.known) == ("copy", 5, BYTES, False)
    assert copy.where == "solvers/_loop.py:163 _iterate"
    assert find(5.0 * BYTES)[0].known


def test_parameters_that_every_call_turns_are_one_finding():
    program = read_program("""
ENTRY %main (w: bf16[512,1024], v: bf16[512,1024], x: bf16[8,8]) -> bf16[1024,512] {
  %w = bf16[512,1024]{1,0} parameter(0)
  %v = bf16[512,1024]{1,0} parameter(1)
  %x = bf16[8,8]{1,0} parameter(2)
  %b = bf16[512,1024]{1,0} bitcast(%v)
  %small = bf16[8,8]{0,1} copy(%x)
  %first = bf16[1024,512]{1,0} transpose(%w), dimensions={1,0}
  %second = bf16[1024,512]{1,0} transpose(%b), dimensions={1,0}
  %sum = bf16[1024,512]{1,0} add(%first, %second)
  ROOT %third = bf16[512,1024]{1,0} transpose(%sum), dimensions={1,0}
}
""")
    (found,) = find_parameter_moves(program)
    assert (found.what, found.times, found.bytes) == ("transpose", 2, 2 * 2**20)


def test_memory_is_a_finding_from_an_array_beyond_the_prediction():
    assert find_memory(BYTES + 10, 20, BYTES) == []
    (found,) = find_memory(BYTES + 20, 20, BYTES)
    assert found.bytes == BYTES
    assert find_memory(9 * BYTES, None, BYTES) == []


def test_a_gpu_reads_the_predicate_of_a_loop_that_depends_on_data():
    program = tpu_program("GT")
    runs = count_executions(program, [Turns("_chain.py:run", 12.0)])
    (found,) = find_host_steps(program, runs, loops_ask_host=True)
    assert (found.what, found.times) == ("predicate", 13)
    assert find_host_steps(program, runs, loops_ask_host=False) == []


def test_a_callback_leaves_the_device():
    def function(x):
        kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(lambda value: value, kind, x)

    program = read_program(compiled(function, (8,)).as_text())
    found = find_host_steps(program, count_executions(program), loops_ask_host=False)
    assert found
    assert all("callback" in each.what for each in found)


def test_a_product_at_default_precision_is_a_finding():
    def products(precision):
        def function(x):
            return jnp.einsum("ij,jk->ik", x, x, precision=precision)

        found = counted(function, (64, 64)).products
        return [(p.dtype, p.precision, p.where, n) for p, n in found.items()]

    (found,) = find_rounded_products(products("default"))
    assert found.what == "float32 at default"
    assert find_rounded_products(products("highest")) == []


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, y: x @ y, [(33, 65), (65, 17)]),
        (lambda x, y: jnp.einsum("bij,bjk->bik", x, y), [(3, 9, 5), (3, 5, 7)]),
        (
            lambda x, y: jax.lax.conv_general_dilated(
                x,
                y,
                (2, 2),
                ((1, 1), (0, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            ),
            [(2, 9, 8, 3), (3, 3, 3, 5)],
        ),
    ],
    ids=["product", "batch of products", "convolution"],
)
def test_flops_of_products_are_those_that_the_compiler_counts(function, shapes):
    flops = compiled(function, *shapes).cost_analysis()["flops"]
    totals = counted(function, *shapes)
    products = sum(count * each.flops for each, count in totals.products.items())
    assert products == pytest.approx(flops, rel=1e-3)


def test_a_scan_counts_every_turn_and_only_the_slices_that_it_reads():
    def function(x):
        return jax.lax.scan(lambda c, row: (c + jnp.tanh(row), None), x[0], x)[0]

    totals = counted(function, (50, 1000))
    assert totals.transcendentals == pytest.approx(50 * 1000, rel=0.01)
    # A turn reads a row and the sum, and writes the sum; not all rows.
    assert totals.bytes < 50 * 10 * 4 * 1000


def test_of_two_branches_the_dearer_one_runs():
    def function(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

    assert counted(function, (64, 64)).flops >= 2 * 2 * 64**3


def test_exchanges_are_found_with_their_bytes():
    program = read_program("""
ENTRY %main (x: f32[4,8]) -> f32[16,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %r = f32[4,8]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %g = f32[16,8]{1,0} all-gather(%r), dimensions={0}
}
""")
    times = count_executions(program).times
    found = {each.what: each.bytes for each in find_collectives(program, times)}
    assert found == {"all-reduce": 128, "all-gather": 512}


def test_a_fusion_reads_a_slice_and_writes_the_new_part_only():
    program = read_program("""
%fused (a: f32[100,8], b: f32[100,8], i: s32[]) -> f32[100,8] {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[100,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %z = s32[] constant(0)
  %s = f32[1,8]{1,0} dynamic-slice(%a, %i, %z), dynamic_slice_sizes={1,8}
  ROOT %u = f32[100,8]{1,0} dynamic-update-slice(%b, %s, %i, %z)
}

ENTRY %main (a: f32[100,8], b: f32[100,8], i: s32[]) -> f32[100,8] {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[100,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %f = f32[100,8]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%fused
}
""")
    fusion = program.computations["main"][-1]
    assert amount_of(program, "main", fusion).bytes == 32 + 32 + 4


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        read_program("HloModule nothing")
