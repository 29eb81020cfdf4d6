"""Formulas of networks against the products of the traced networks."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from dslo_jax.attention import average_attention
from dslo_jax.cost import Work, networks
from dslo_jax.logits import ClipLogits
from dslo_jax.models.clip import Clip
from dslo_jax.models.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig
from dslo_jax.models.dinov3 import Dinov3
from dslo_jax.models.dinov3_config import Dinov3Config
from dslo_jax.models.proxy import ProxyVit
from dslo_jax.models.query_key import QueryKey
from dslo_jax.models.unet import UNet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig
from dslo_jax.models.vit import Vit
from dslo_jax.models.vit_config import VitConfig
from dslo_jax.ops import Patches
from dslo_jax.work import product


CLIP = ClipConfig(
    ClipTextConfig(
        vocab_size=99,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=3,
    ),
    ClipVisionConfig(
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    ),
    projection_dim=16,
)
UNET = UNetConfig(
    block_out_channels=(16, 32, 48),
    down_attention=(True, True, False),
    up_attention=(False, True, True),
    heads=(2, 4, 3),
    cross_attention_dim=20,
    norm_num_groups=8,
)
VAE_CONFIG = VAEConfig((16, 24, 32), layers_per_block=2, norm_num_groups=8)


@functools.cache
def shapes_of(build):
    return nnx.split(nnx.eval_shape(build))


def products(build, call, *shapes):
    """Products and convolutions of a traced network, one by one."""
    graph, state = shapes_of(build)
    return traced(lambda state, *a: call(nnx.merge(graph, state), *a), state, *shapes)


def traced(function, *shapes):
    return count(jax.make_jaxpr(function)(*shapes).jaxpr)


def count(jaxpr):
    work = Work()
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        inner = [
            getattr(value, "jaxpr", value)
            for parameter in parameters.values()
            for value in (parameter if isinstance(parameter, tuple) else (parameter,))
        ]
        if parameters.get("branches_platforms"):
            inner = [parameters["branches"][0].jaxpr]  # that of the CPU
        body = sum((count(i) for i in inner if hasattr(i, "eqns")), start=Work())
        work += body.looped(parameters["length"]) if name == "scan" else body
        assert name != "while" or body == Work()  # no telling how often
        if name == "dot_general":
            (axes, _), _ = parameters["dimension_numbers"]
            meeting = math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
            work += product(equation.outvars[0].aval.size, meeting, 1)
        if name == "conv_general_dilated":
            work += convolution(equation)
    return work


def convolution(equation):
    """Every tap of every output, looked at by itself."""
    image, kernel = (variable.aval.shape for variable in equation.invars)
    result = equation.outvars[0].aval.shape
    numbers = equation.params["dimension_numbers"]
    taps = 1
    for axis in range(2):
        length, before = image[numbers.lhs_spec[2 + axis]], equation.params["padding"]
        stride = equation.params["window_strides"][axis]
        taps *= sum(
            0 <= out * stride - before[axis][0] + tap < length
            for out in range(result[numbers.out_spec[2 + axis]])
            for tap in range(kernel[numbers.rhs_spec[2 + axis]])
        )
    return product(taps, *(kernel[i] for i in numbers.rhs_spec[:2]))


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def build_clip():
    return Clip(CLIP, rngs=nnx.Rngs(0))


def build_unet():
    return UNet(UNET, rngs=nnx.Rngs(0))


def test_text():
    ids = jax.ShapeDtypeStruct((5, 7), jnp.int32)
    found = products(build_clip, lambda clip, ids: clip.encode_text(ids), ids)
    assert networks.text(CLIP, 5, 7) == found


@pytest.mark.parametrize(
    ("mixing", "size", "unused"),
    [
        *(("vanilla", (3, 5), 0), ("maskclip", (3, 5), 0)),
        *(("kk_mean", (3, 5), 1), ("qk_mean", (4, 4), 0)),
        ("rf-clip", (3, 5), 2),
        *(("sclip", (3, 5), 0), ("clearclip", (3, 5), 1), ("naclip", (3, 5), 1)),
        *(("gem", (3, 5), 0), ("clip-surgery", (3, 5), 2)),
    ],
)
def test_vision(mixing, size, unused):
    """The compiler drops the queries or keys that a last block does not compare."""
    length = math.prod(size) + 3
    grid = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    found = products(
        build_clip,
        lambda clip, patches: clip.patch_features(patches, attention=mixing),
        Patches(floats(1, length, 8, 8, 3), grid),
    )
    dropped = product(length + 1, 32, 32).times(unused)
    assert networks.vision(CLIP, length, mixing) + dropped == found


@pytest.mark.parametrize(
    ("mixing", "unused", "registers"), [("proxyclip", 0, 4), ("cass", 1, 0)]
)
def test_vision_with_a_proxy(mixing, unused, registers):
    """The compiler also drops what the variant does not read of the proxy."""
    config = VitConfig(
        **{"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "image_size": 24, "patch_size": 6},
        **{"num_register_tokens": registers, "layer_scale": True},
    )

    def build():
        clip, proxy = build_clip(), ProxyVit(config, rngs=nnx.Rngs(0))
        return ClipLogits(clip, proxy)

    grid = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    found = products(
        build,
        lambda source, *cuts: source.features(cuts[0], mixing, cuts[1]),
        Patches(floats(1, 12, 8, 8, 3), grid),
        Patches(floats(1, 20, 6, 6, 3), grid),
    )
    source = nnx.eval_shape(build)
    dropped = product(12 + 1, 32, 32).times(unused)
    assert source.features_work(12, mixing, 20) + dropped == found


def test_vision_without_class_token():
    """SC-CLIP runs the last block twice, on patches only, and needs no queries."""
    found = products(
        build_clip,
        lambda clip, patches: clip.patch_features(patches, attention="sc-clip"),
        Patches(floats(1, 18, 8, 8, 3), jax.ShapeDtypeStruct((1, 2), jnp.int32)),
    )
    dropped = product(18, 32, 32).looped(2)
    assert networks.vision(CLIP, 18, "sc-clip") + dropped == found


def test_vae():
    found = products(
        lambda: VAE(VAE_CONFIG, rngs=nnx.Rngs(0)),
        lambda vae, pixels: vae(pixels),
        floats(1, 20, 28, 3),
    )
    assert networks.vae(VAE_CONFIG, 20, 28) == found


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(0, marks=pytest.mark.slow),
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(-1, marks=pytest.mark.slow),
    ],
)
def test_unet_up_to_any_tap(place):
    """The compiler drops the values of the last self-attention."""
    tap = UNET.taps[place]
    found = products(
        build_unet,
        lambda unet, *inputs: unet(*inputs, timestep=0, taps=(tap,)),
        floats(1, 7, 10, 4),
        jax.eval_shape(UNet.keys_values, nnx.eval_shape(build_unet), floats(1, 6, 20)),
    )
    level, tokens = {0: (0, 70), 4: (2, 2 * 3), -1: (0, 70)}[place]
    channels = UNET.block_out_channels[level]
    dropped = product(tokens, channels, channels)
    assert networks.unet(UNET, (7, 10), 6, (tap,)) + dropped == found


def test_aggregation():
    maps = [QueryKey(*[floats(1, 30, 2, 8)] * 2), QueryKey(*[floats(1, 30, 4, 5)] * 2)]
    found = traced(lambda *maps: average_attention(maps, [0.4, 0.6]), *maps)
    assert networks.aggregation([(2, 16), (4, 20)], 30) == found
    wider = QueryKey(floats(1, 30, 2, 8), floats(1, 35, 2, 8))
    found = traced(lambda pair: average_attention([pair], [1.0]), wider)
    assert networks.aggregation([(2, 16)], 30, 5) == found


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(4, 4), (6, 6)])
def test_vit_up_to_a_layer(grid, antialias, swiglu):
    """The compiler drops the values of the last layer."""
    config = VitConfig(
        **{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3},
        **{"num_attention_heads": 3, "image_size": 32, "patch_size": 8},
        **{"num_register_tokens": 4, "layer_scale": True, "antialias": antialias},
        swiglu=swiglu,
    )
    found = products(
        lambda: Vit(config, rngs=nnx.Rngs(0)),
        lambda vit, pixels: vit.queries_keys(pixels, (0, 1)),
        floats(1, 8 * grid[0], 8 * grid[1], 3),
    )
    dropped = product(grid[0] * grid[1] + 5, 24, 24)
    assert networks.vit(config, *grid, 5, 1) + dropped == found


@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov3_up_to_a_layer(swiglu):
    """Nothing is resampled, whatever the grid; the rotation is no product."""
    config = Dinov3Config(
        **{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3},
        **{"num_attention_heads": 3, "image_size": 32, "patch_size": 8},
        **{"num_register_tokens": 4, "swiglu": swiglu},
    )
    found = products(
        lambda: Dinov3(config, rngs=nnx.Rngs(0)),
        lambda vit, pixels: vit.queries_keys(pixels, (0, 1)),
        floats(1, 48, 40, 3),
    )
    assert networks.vit(config, 6, 5, 5, 1) == found
