"""The networks on their device, loaded once for all configurations."""

import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import prompts
from dslo_jax.attention import AffinityOptions, AffinitySource
from dslo_jax.cache import NameStore
from dslo_jax.config import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.logits import LogitsSource, Windows
from dslo_jax.pipeline.checks import FEWEST_CLASSES
from dslo_jax.pipeline.placement import Placement
from dslo_jax.pipeline.programs import network_stage
from dslo_jax.pipeline.stages import Clock, Static
from dslo_jax.solvers.contract import check_solve
from dslo_jax.templates import find_templates


LoadProxy = Callable[[], nnx.Module]
"""A function that loads the second network of a source of logits, when the first
attention that needs one is used."""

Load = Callable[[AffinityOptions], AffinitySource]
"""A function that loads a source of affinities. It is called when the source is needed
for the first time, with the options of that call."""


_KEPT_LISTS = 8  # lists of classes whose features stay on the device
_KEPT_NAMES = 2**16  # names whose features stay on the host


class OnDevice:
    """A network split into graph and parameters, for compiled programs.

    Args:
        module: The network.
        placement: The device of its parameters.
    """

    def __init__(self, module: Any, placement: Placement):
        graph, state = nnx.split(module)
        self.module = module
        self.graph = Static(graph)
        self.state = placement.put(state)


class Networks:
    """A source of logits and sources of affinities, for any configuration.

    Args:
        logits: The source of logits.
        tokenizer: The tokenizer of ``logits``.
        affinities: Sources of affinities by name, or functions that load them; the
            default source has the empty name. ``None`` if no discrepancy needs an
            affinity.
        downscaling: Pixels per patch of a source that is not loaded, which gives the
            grid of the maps.
        proxy: The second network of ``logits`` for attentions that need one, or a
            function that loads it; ``None`` if there is none.
        kept: Features of names that are kept on disk.
        placement: The devices; default: that of the parameters of ``logits``.
    """

    def __init__(
        self,
        logits: LogitsSource,
        tokenizer: Any,
        affinities: Mapping[str, AffinitySource | Load] | AffinitySource | None = None,
        *,
        downscaling: int = 8,
        proxy: nnx.Module | LoadProxy | None = None,
        kept: NameStore | None = None,
        placement: Placement | None = None,
    ):
        self.placement = placement or Placement(_device_of(logits))
        self.logits = OnDevice(logits, self.placement)
        self.tokenizer = tokenizer
        if affinities is None:
            affinities = {}
        if isinstance(affinities, AffinitySource):
            affinities = {"": affinities}
        self._affinities = dict(affinities)
        self._variants: dict[tuple[str, AffinityOptions], OnDevice] = {}
        self._encoders: dict[tuple[str, Hashable], OnDevice] = {}
        self._downscaling = downscaling
        self._proxy = proxy
        self._with_proxy: OnDevice | None = None
        self._kept = kept
        self._text: dict[tuple[Any, str], Float[np.ndarray, " channels"]] = {}
        self._text_on_device: dict[tuple[Any, tuple[str, ...]], Array] = {}
        self._lock = threading.RLock()  # batches of one stream run in several threads

    @classmethod
    def with_kept_names(
        cls, logits: LogitsSource, tokenizer: Path, *args: Any, **options: Any
    ) -> "Networks":
        """Networks whose features of names are kept on disk between runs.

        The tokenizer is loaded now, unless it was loaded for such features before.

        Args:
            logits: A source of logits whose code belongs to this package.
            tokenizer: Folder of its tokenizer.
            *args: As for ``Networks``.
            **options: As for ``Networks``.

        Raises:
            CheckpointError: The files of the tokenizer are missing (``W08``) or
                unreadable (``W04``).
        """
        kept = NameStore.of(logits, tokenizer, _device_of(logits))
        loaded_before = kept is not None and kept.is_used
        load = prompts.LazyTokenizer if loaded_before else prompts.load_tokenizer
        return cls(logits, load(tokenizer), *args, kept=kept, **options)

    def with_affinities(self, more: Mapping[str, AffinitySource]) -> "Networks":
        """These networks with further sources of affinities."""
        return Networks(
            self.logits.module,
            self.tokenizer,
            {**self._affinities, **more},
            downscaling=self._downscaling,
            proxy=self._proxy,
            kept=self._kept,
            placement=self.placement,
        )

    @property
    def device(self) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
        """The device of the networks; of several equal ones, the first."""
        return self.placement.device

    def source_of_logits(self, attention: str) -> OnDevice:
        """The source of logits for an attention; its proxy is loaded if it needs one.

        Raises:
            CheckpointError: The checkpoint of the proxy is missing, damaged or of
                another kind.
            OptionError: The attention needs a proxy and there is none, or it does not
                fit (``O05``).
        """
        if not self.logits.module.needs_proxy(attention):
            return self.logits
        with self._lock:
            if self._with_proxy is None:
                if self._proxy is None:
                    raise OptionError("O05", _no_proxy(attention))
                if not isinstance(self._proxy, nnx.Module):
                    self._proxy = self._proxy()
                own = nnx.merge(self.logits.graph.value, self.logits.state)
                source = own.with_proxy(self._proxy)
                self._with_proxy = OnDevice(source, self.placement)
            self._with_proxy.module.cuts(attention)  # told now if it does not fit
            return self._with_proxy

    @property
    def has_proxy(self) -> bool:
        """Whether there is a second network for attentions that need one."""
        return self._proxy is not None

    @property
    def affinity_names(self) -> tuple[str, ...]:
        """The names of the sources of affinities."""
        return tuple(self._affinities)

    def affinity_source(
        self, name: str = "", *, options: AffinityOptions = AffinityOptions()
    ) -> AffinitySource:
        """A source of affinities, loaded if it has not been yet.

        Args:
            name: One of ``affinity_names``.
            options: The options to load it with, if it is not loaded yet.

        Raises:
            OptionError: There is none of this name (``O05``), or the network has no
                use for an option (``O01``).
        """
        if name not in self._affinities:
            raise OptionError("O05", self._missing(name))
        with self._lock:
            source = self._affinities[name]
            if not isinstance(source, AffinitySource):
                source = self._affinities[name] = source(options)
            return source

    def affinity(self, options: AffinityOptions, name: str = "") -> OnDevice:
        """A source of affinities with these options, ready to run.

        Raises:
            OptionError: As for ``affinity_source``.
        """
        key = name, options
        with self._lock:
            if key not in self._variants:
                source = self.affinity_source(name, options=options)
                variant = source.with_options(options)
                explicit = name, variant.options  # with the layers named
                if explicit not in self._variants:
                    self._variants[explicit] = OnDevice(variant, self.placement)
                self._variants[key] = self._variants[explicit]
            return self._variants[key]

    def encoder(self, options: AffinityOptions, name: str = "") -> OnDevice:
        """A source of affinities for its ``encode`` alone, ready to run.

        All options that ``encode`` does not depend on share one source. A program is
        compiled for a network with its options, and that of an autoencoder takes long
        to compile; another timestep must not compile it again.
        """
        variant = self.affinity(options, name)
        return self._encoders.setdefault((name, variant.module.encoding), variant)

    def check(self, config: SegmenterConfig, affinity_name: str = "") -> None:
        """Refuse options that the networks cannot use; load the proxy of the logits.

        A discrepancy of one's own is traced for the grid of the maps.

        Raises:
            CheckpointError: As for ``source_of_logits``.
            OptionError: As for ``source_of_logits``, or its windows are no whole
                patches (``O01``), or a discrepancy of one's own does not return what
                it should (``O10``).
        """
        attention = config.clip.attention
        source = self.source_of_logits(attention).module
        Windows.of(config.clip, source.cuts(attention).sides)
        patches = math.prod(self.grid(config.affinity, affinity_name))
        check_solve(config.discrepancy, FEWEST_CLASSES, patches)

    def grid(self, options: AffinityOptions, name: str = "") -> tuple[int, int]:
        """Rows and columns of the maps, without loading anything."""
        source = self._affinities.get(name)
        known = isinstance(source, AffinitySource)
        side = options.size // (source.downscaling if known else self._downscaling)
        return side, side

    def embed(
        self, clock: Clock, names: Sequence[str], templates: Any
    ) -> Float[Array, "names channels"]:
        """Compute features of names; a name is encoded once per set of templates.

        A name is encoded alone, so that its features do not depend on other names.
        """
        asked = templates, tuple(names)
        with self._lock:
            if len(self._text) + len(names) > _KEPT_NAMES:
                self._text.clear()
            for name in names:
                if (templates, name) not in self._text:
                    self._text[templates, name] = self._features(clock, name, templates)
            if asked not in self._text_on_device:
                rows = [self._text[templates, name] for name in names]
                if len(self._text_on_device) == _KEPT_LISTS:
                    self._text_on_device.clear()
                self._text_on_device[asked] = self.placement.put(np.stack(rows))
            return self._text_on_device[asked]

    def _features(
        self, clock: Clock, name: str, templates: Any
    ) -> Float[np.ndarray, " channels"]:
        texts = find_templates(templates)
        features = self._kept and self._kept.read(name, texts)
        if features is None:
            network = self.logits
            stage = network_stage("embed", network.module.stages[0])
            (features,) = prompts.embed_names(
                lambda ids: stage(
                    clock, network.state, self.placement.put(ids), graph=network.graph
                ),
                self.tokenizer,
                [name],
                texts,
            )
            if self._kept is not None:
                self._kept.write(name, texts, features)
        return features

    def _missing(self, name: str) -> str:
        if name:
            known = ", ".join(map(repr, self._affinities))
            return f"there is no source of affinities {name!r}; there are {known}"
        return (
            "this mode needs self-attention, and there is no attention checkpoint; "
            "pass one, or choose the mode kl or logits"
        )


def _no_proxy(attention: str) -> str:
    return (
        f"clip_attention {attention!r} needs a DINO or DINOv2 as its proxy, and there "
        "is none; pass one (proxy=..., --proxy dino-b8), or choose another attention"
    )


def _device_of(module: Any) -> jax.Device:  # pyright: ignore[reportInvalidTypeForm]
    """The device of the parameters of a network; the first one if it has none."""
    leaves = jax.tree.leaves(nnx.state(module))
    return next(iter(leaves[0].devices())) if leaves else jax.local_devices()[0]
