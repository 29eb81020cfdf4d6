"""What the solvers and the steps around them become on accelerators, without one."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from dslo_jax import ops
from dslo_jax.solvers import maximum_velocity, optimal_path, sinkhorn


CLASSES, SIDE, IMAGES = 21, 16, 2
PATCHES = SIDE * SIDE


def shape(*axes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(axes, dtype)


SOURCE, AFFINITY = shape(CLASSES, PATCHES), shape(PATCHES, PATCHES)
SOLVE = {
    "path": partial(optimal_path, support=64),
    "path of pairs": partial(optimal_path, pairs=64),
    "path in the log domain": partial(optimal_path, domain="log"),
    "potentials": sinkhorn,
    "velocity": maximum_velocity,
}


def programs():
    many = shape(200, PATCHES)
    yield "velocity of many classes", maximum_velocity, (many, AFFINITY)
    for name, solve in SOLVE.items():
        yield name, solve, (SOURCE, AFFINITY)
        batch = shape(IMAGES, *SOURCE.shape), shape(IMAGES, *AFFINITY.shape)
        yield f"{name}, images at once", jax.vmap(solve), batch
    narrow = shape(PATCHES, PATCHES, dtype=jnp.bfloat16)
    yield "path, bfloat16 affinity", SOLVE["path"], (SOURCE, narrow)
    maps, photo = shape(CLASSES, SIDE, SIDE), shape(8 * SIDE, 8 * SIDE, 3)
    yield "dense upsampling", ops.dense_bilateral_upsample, (maps, photo)
    for form in ("product", "squares", "hat"):
        label = partial(ops.label_tile, form=form, together=ops.tiles.UNITS)
        yield f"labels, {form}", label, (tile(form), shape(2))


def tile(form):
    """The shapes of a tile with room for 8 classes."""
    units, pieces, neighbours = ops.tiles.UNITS, 2048, 9 if form == "hat" else 25
    whole = partial(shape, dtype=jnp.int32)
    return ops.Tile(
        pixels=None
        if form == "hat"
        else shape(units, ops.tiles.SLOTS, 3, dtype=jnp.uint8),
        piece=whole(units),
        start=whole(units),
        used=whole(),
        width=whole(pieces),
        origin=shape(pieces, 2),
        step=shape(pieces, 2),
        mean=shape(pieces, 3),
        colours=shape(pieces, neighbours, 3),
        inside=shape(pieces, neighbours, dtype=bool),
        values=shape(pieces, 8, neighbours),
        classes=whole(pieces, 8),
        count=whole(pieces),
    )


def products_of(function, arguments):
    """The lines of a program for GPU and TPU that multiply matrices."""
    export = jax.export.export(jax.jit(function), platforms=["cuda", "tpu"])
    exported = export(*arguments)
    lines = exported.mlir_module().splitlines()
    return [line for line in lines if "stablehlo.dot" in line]


@pytest.mark.parametrize(
    ("name", "function", "arguments"),
    [pytest.param(*each, id=each[0]) for each in programs()],
)
def test_no_product_is_rounded(name, function, arguments):
    """Accelerators multiply float32 in fewer digits unless they are told not to."""
    products = products_of(function, arguments)
    if "log" not in name:  # adds logarithms
        assert products
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line, line


def test_a_rounded_product_would_be_found():
    products = products_of(jnp.matmul, (SOURCE, AFFINITY))
    assert products
    assert not any("HIGHEST" in line for line in products)
