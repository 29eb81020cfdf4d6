"""The programs of the pipeline at full size, made from shapes alone."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dslo_jax import ops
from dslo_jax.attention import AffinityOptions, DiffusionAffinity
from dslo_jax.bench import full_size
from dslo_jax.bench.compile.executions import Turns
from dslo_jax.config import SegmenterConfig
from dslo_jax.cost import Work, solver_bytes, solver_work
from dslo_jax.logits import ClipLogits
from dslo_jax.models.clip import Clip
from dslo_jax.models.clip_config import ClipConfig
from dslo_jax.models.unet import UNet
from dslo_jax.models.unet_config import UNetConfig
from dslo_jax.models.vae import VAE, VAEConfig
from dslo_jax.pipeline import Placement, checks, programs
from dslo_jax.pipeline.sequences import cut_photo, sequence_lengths
from dslo_jax.pipeline.stages import Stage, Static
from dslo_jax.solvers import DISCREPANCIES, Counts, Discrepancy, discrepancy_of
from dslo_jax.weights import OneKey


NETWORKS = ("text", "clip", "vae", "unet")
STEPS = ("logits", "sources", "chosen")
LABELS = "labels"
SOLVER = "solver:"
"""Beginning of the names of the stages that solve for a discrepancy."""

PROMPTS, TOKENS = 80, 16
"""Sentences of a class name, and tokens of the longest one."""

PHOTO = (480, 640)
"""Height and width of the photo that CLIP sees, before it is resized."""

_PIXELS = 8  # of a photo, along each side of a patch

ROWS = 8
"""The part of the patches that have mass in a class is 1 / ROWS."""

SINKHORN_STEPS, CHAIN_STEPS, WALK_STEPS = 2.0, 12.0, 70.0
"""Assumed steps of paths, of velocities and of label propagation. On drawn scenes of
1024 patches and 8 classes they take 2, 4 to 13, and 60 to 73 steps."""


class Size(NamedTuple):
    """The size of a stage.

    Attributes:
        patches: Number of patches of the affinity; a square number.
        classes: Number of classes.
        batch: Number of photos.
        dtype: Type of the networks; all other stages compute in float32.
    """

    patches: int
    classes: int
    batch: int
    dtype: str

    @property
    def side(self) -> int:
        """Patches along each side."""
        return math.isqrt(self.patches)


def words_of_size(size: Size) -> str:
    """A size in words, without what is 0."""
    words = [f"{size.batch} photo{'s' if size.batch > 1 else ''}"]
    if size.patches:
        words.append(f"{size.patches} patches")
    if size.classes:
        words.append(f"{size.classes} classes")
    return ", ".join([*words, size.dtype])


def is_square_number(patches: int) -> bool:
    """Whether a photo can have this number of patches: the square of a multiple of 8.

    The UNet halves the sides of the latents three times.
    """
    side = math.isqrt(max(patches, 0))
    return side > 0 and side**2 == patches and side % 8 == 0


class Case(NamedTuple):
    """One program to compile.

    Attributes:
        name: Name of the stage, such as ``"unet"`` or ``"solver:path"``.
        stage: The stage of the pipeline.
        args: Its arguments, as shapes with a sharding.
        static: Its static arguments.
        calls: Calls for a batch of photos.
        turns: Assumed turns of its loops.
        work: Computation of a call by the cost model; ``None`` without a formula.
        memory: Temporary memory by the cost model in bytes; ``None`` without a formula.
        is_network: Whether it is a network, whose purpose are attention scores.
        is_solver: Whether it is a solver.
    """

    name: str
    stage: Stage
    args: tuple[Any, ...]
    static: Mapping[str, Hashable]
    calls: int = 1
    turns: tuple[Turns, ...] = ()
    work: Work | None = None
    memory: int | None = None
    is_network: bool = False
    is_solver: bool = False


def stage_names() -> tuple[str, ...]:
    """Names of all stages, in the order of the pipeline."""
    solvers = (f"{SOLVER}{name}" for name in DISCREPANCIES)
    return (*NETWORKS, *STEPS, *solvers, LABELS)


def sizes_alike(name: str, size: Size) -> Size:
    """The size, without what a stage does not depend on."""
    if name in ("text", "clip"):
        return size._replace(patches=0, classes=0, batch=1)
    if name in ("vae", "unet"):
        return size._replace(classes=0)
    return size._replace(dtype="float32")


def make_cases(
    name: str, size: Size, place: Placement, platform: str
) -> Iterator[Case]:
    """Make the programs of a stage; several only for labels.

    Args:
        name: One of ``stage_names``.
        size: The size.
        place: The chips, for shapes only.
        platform: ``"tpu"`` or ``"gpu"``; choices that the host makes depend on it.
    """
    if name in ("text", "clip"):
        yield _clip_case(name, size, place)
    elif name in ("vae", "unet"):
        yield _diffusion_case(name, size, place)
    elif name == LABELS:
        yield from _label_cases(size, place, platform)
    elif name in STEPS:
        yield _step_case(name, size, place)
    else:
        yield _solver_case(name.removeprefix(SOLVER), size, place, platform)


def _shape(shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)


def _network(
    build: Callable[[], nnx.Module], place: Placement, dtype: str
) -> tuple[Any, Static, Any]:
    """A network of shapes: the module, its graph, and its parameters."""

    def converted(leaf: Any) -> Any:
        is_floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return _shape(leaf.shape, jnp.dtype(dtype) if is_floating else leaf.dtype)

    module = nnx.eval_shape(build)
    graph, state = nnx.split(module)
    return module, Static(graph), place.put(jax.tree.map(converted, state))


def _clip_case(name: str, size: Size, place: Placement) -> Case:
    config = ClipConfig.from_dict({"model_type": "clip", **full_size.CLIP["b16"]})
    module, graph, state = _network(
        lambda: ClipLogits(Clip(config, rngs=OneKey())), place, size.dtype
    )
    if name == "text":
        ids = place.put(_shape((PROMPTS, TOKENS), jnp.int32))
        return Case(
            name,
            programs.network_stage("embed", "text"),
            (state, ids),
            {"graph": graph},
            work=module.embed_work(PROMPTS, TOKENS),
            is_network=True,
        )
    options, patch = SegmenterConfig().clip, config.vision.patch_size
    patches = cut_photo(np.zeros((*PHOTO, 3), np.uint8), options, (patch,))[0]
    longest = sequence_lengths(options, patch)[-1]
    return Case(
        name,
        programs.network_stage("features", "clip"),
        (state, place.put(patches)),
        {"graph": graph, "attention": options.attention, "longest": longest},
        calls=size.batch,
        work=module.features_work(patches.pixels.shape[1], options.attention),
        is_network=True,
    )


def _diffusion_case(name: str, size: Size, place: Placement) -> Case:
    unet, vae = (
        UNetConfig.from_dict(full_size.UNET),
        VAEConfig.from_dict(full_size.VAE),
    )
    pixels = size.side * vae.downscaling

    def build() -> DiffusionAffinity:
        tokens = full_size.CONTEXT_TOKENS
        return DiffusionAffinity(
            VAE(vae, rngs=OneKey()),
            UNet(unet, rngs=OneKey()),
            jnp.zeros((1, tokens, unet.cross_attention_dim)),
            AffinityOptions(size=pixels),
        )

    module, graph, state = _network(build, place, size.dtype)
    batch = size.batch
    photos = place.put_batch(_shape((batch, pixels, pixels, 3), jnp.uint8))
    work = module.work()
    if name == "vae":
        stage, given = programs.network_stage("encode", "vae"), photos
        amount = work["vae"]
    else:
        shape = (batch, size.side, size.side, 4)
        given = place.put_batch(_shape(shape, jnp.dtype(size.dtype)))
        stage = programs.network_stage("attend", "unet")
        amount = work["unet"] + work["aggregation"]
    return Case(
        name,
        stage,
        (state, given),
        {"graph": graph},
        work=amount.times(batch),
        is_network=True,
    )


def _step_case(name: str, size: Size, place: Placement) -> Case:
    config = SegmenterConfig()
    patches, classes, batch, _ = size
    logits = place.put_batch(_shape((batch, classes, patches)))
    if name == "sources":
        return Case(name, programs.SOURCES, (logits,), {"options": config.source})
    if name == "chosen":
        active = place.put_batch(_shape((batch, classes), jnp.bool))
        static = {"size": _active(classes)}
        return Case(name, programs.COMPACTED, (logits, active), static)
    clip = full_size.CLIP["b16"]
    channels, patch = clip["projection_dim"], clip["vision_config"]["patch_size"]
    longest = sequence_lengths(config.clip, patch)[-1]
    shape = place.parts, longest, channels
    features: Any = tuple(
        place.put_batch(_shape(shape)) for _ in range(batch // place.parts)
    )
    grids: Any = place.put_batch(_shape((batch, 2), jnp.int32))
    photos = programs.PhotoFeatures(features, grids)
    given = (
        photos,
        place.put(_shape((classes, channels))),
        place.put(_shape((classes,), jnp.int32)),
    )
    static = {"num_classes": classes, "grid": (size.side, size.side)}
    return Case(name, programs.LOGITS, given, static)


def _active(classes: int) -> int:
    """Number of classes that the solvers are compiled for."""
    return checks.class_bucket(classes, classes)


def _solver_case(name: str, size: Size, place: Placement, platform: str) -> Case:
    patches, _, batch, _ = size
    classes, rows = _active(size.classes), max(patches // ROWS, 1)
    counts = Counts(rows, rows, classes, patches, step=1, platform=platform)
    discrepancy = discrepancy_of(name)
    if discrepancy.wants_counts:
        discrepancy = discrepancy.fitted(counts)
    first, *_ = discrepancy.attempts
    source = place.put_classes(place.put_batch(_shape((batch, classes, patches))))
    affinity = None
    if first.needs_affinity:
        affinity = place.put_batch(_shape((batch, patches, patches)))
        affinity = place.put_affinity(affinity)
    steps = {"path": SINKHORN_STEPS, "velocity": CHAIN_STEPS}.get(name, 0.0)
    taken = np.full((batch, classes), int(steps))
    return Case(
        f"{SOLVER}{name}",
        programs.DISCREPANCY,
        (source, affinity),
        {"discrepancy": first},
        turns=tuple(_turns(first)),
        work=solver_work(first, taken, patches, platform=platform),
        memory=solver_bytes(first, classes, patches, images=batch, platform=platform),
        is_solver=True,
    )


def _turns(discrepancy: Discrepancy) -> Iterator[Turns]:
    """Turns of the loops of the solvers, by the functions that start them."""
    rounds = getattr(discrepancy, "balancing_steps", 15)
    yield Turns("balancing.py:scale", float(rounds - 1))
    yield Turns("_chain.py:run", CHAIN_STEPS)
    yield Turns("_chain.py:is_at_rest", 0.0)
    yield Turns("_scaling.py:scale", SINKHORN_STEPS - 1)
    yield Turns("propagation.py:LabelPropagation.solve", WALK_STEPS)


def _label_cases(size: Size, place: Placement, platform: str) -> Iterator[Case]:
    """One case for each number of layers of a call, which all photos share."""
    grid, batch, active = (size.side, size.side), size.batch, _active(size.classes)
    pixels = np.zeros((_PIXELS * size.side, _PIXELS * size.side, 3), np.uint8)
    photo = ops.PhotoLayers(pixels, grid, coloured=True)
    counted = Counter(call.count for call in ops.divide_layers(photo.total))
    for count, calls in counted.items():
        layers = ops.cut_batch([photo] * batch, ops.Call(0, count))
        means = (batch, 3, *grid)
        given = (
            place.put_batch(_shape((batch, active, size.patches))),
            place.put_batch(_shape((batch,), jnp.int32)),
            place.put_batch(_shape(means)),
            place.put_batch(layers),
            place.put(_shape((2,))),
        )
        together = ops.layers_together(count, batch, active, size.patches, platform)
        yield Case(
            LABELS if len(counted) == 1 else f"{LABELS} of {count} layers",
            programs.LAYER_LABELS,
            given,
            {"grid": grid, "together": together},
            calls=calls,
        )
