"""The networks on their device, loaded once, whatever they are used for."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from dslo_jax import prompts
from dslo_jax.attention import AffinityOptions, AffinitySource
from dslo_jax.errors import OptionError
from dslo_jax.logits import LogitsSource
from dslo_jax.pipeline.programs import network_stage
from dslo_jax.pipeline.stages import Clock, Static
from dslo_jax.templates import find_templates


Load = Callable[[AffinityOptions], AffinitySource]
"""Loads a source of affinities; called when it is needed for the first time, with the
options that it is needed with."""


class OnDevice:
    """A network that is split for compiled programs, its parameters on a device.

    Args:
        module: The network.
        device: Where its parameters go.
    """

    def __init__(self, module: Any, device: jax.Device):  # pyright: ignore[reportInvalidTypeForm]
        graph, state = nnx.split(module)
        self.module = module
        self.graph = Static(graph)
        self.state = jax.device_put(state, device)


class Networks:
    """A source of logits and some of affinities, ready to run in any configuration.

    Args:
        logits: Gives features of words and photos.
        tokenizer: The tokenizer of ``logits``.
        affinities: Sources of affinities by name, or what loads them; the empty name
            is the one that is used unless told otherwise. There may be none where no
            discrepancy needs one.
        downscaling: Pixels per patch of the affinity that is left out: without one,
            the maps have the grid that it would have given them.
    """

    def __init__(
        self,
        logits: LogitsSource,
        tokenizer: Any,
        affinities: Mapping[str, AffinitySource | Load] | AffinitySource | None = None,
        *,
        downscaling: int = 8,
    ):
        leaves = jax.tree.leaves(nnx.state(logits))
        self.device = next(iter(leaves[0].devices())) if leaves else jax.devices()[0]
        self.logits = OnDevice(logits, self.device)
        self.tokenizer = tokenizer
        if affinities is None:
            affinities = {}
        if isinstance(affinities, AffinitySource):
            affinities = {"": affinities}
        self._affinities = dict(affinities)
        self._variants: dict[tuple[str, AffinityOptions], OnDevice] = {}
        self._encoders: dict[tuple[str, Hashable], OnDevice] = {}
        self._downscaling = downscaling
        self._text: dict[tuple[Any, str], Float[np.ndarray, " channels"]] = {}

    def with_affinities(self, more: Mapping[str, AffinitySource]) -> "Networks":
        """The same networks with further sources of affinities."""
        return Networks(
            self.logits.module,
            self.tokenizer,
            {**self._affinities, **more},
            downscaling=self._downscaling,
        )

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
            options: What it is to read, if it is loaded now.

        Raises:
            OptionError: There is none of this name (``O05``), or the network has no
                use for an option (``O01``).
        """
        if name not in self._affinities:
            raise OptionError("O05", self._missing(name))
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
        if key not in self._variants:
            source = self.affinity_source(name, options=options)
            variant = source.with_options(options)
            explicit = name, variant.options  # with the layers named
            if explicit not in self._variants:
                self._variants[explicit] = OnDevice(variant, self.device)
            self._variants[key] = self._variants[explicit]
        return self._variants[key]

    def encoder(self, options: AffinityOptions, name: str = "") -> OnDevice:
        """The same, to encode photos: one for all options that encoding ignores.

        A program belongs to a network with its options, and that of an autoencoder
        takes long to compile: another timestep must not compile it again.
        """
        variant = self.affinity(options, name)
        return self._encoders.setdefault((name, variant.module.encoding), variant)

    def grid(self, options: AffinityOptions, name: str = "") -> tuple[int, int]:
        """Rows and columns of the maps, told without loading anything."""
        source = self._affinities.get(name)
        known = isinstance(source, AffinitySource)
        side = options.size // (source.downscaling if known else self._downscaling)
        return side, side

    def embed(
        self, clock: Clock, names: Sequence[str], templates: Any
    ) -> Float[Array, "names channels"]:
        """Features of names; each is encoded once for each set of templates."""
        new = [name for name in names if (templates, name) not in self._text]
        if new:
            stage = network_stage("embed", self.logits.module.stages[0])
            network = self.logits
            embedded = prompts.embed_names(
                lambda ids: stage(
                    clock, network.state, self.put(ids), graph=network.graph
                ),
                self.tokenizer,
                new,
                find_templates(templates),
            )
            keys = [(templates, name) for name in new]
            self._text.update(zip(keys, embedded, strict=True))
        return self.put(np.stack([self._text[templates, name] for name in names]))

    def put(self, tree: Any) -> Any:
        """Arrays on the device of the networks."""
        return jax.device_put(tree, self.device)

    def _missing(self, name: str) -> str:
        if name:
            known = ", ".join(map(repr, self._affinities))
            return f"there is no source of affinities {name!r}; there are {known}"
        return (
            "what is solved for needs self-attention, and there is no attention "
            "checkpoint; give one, or choose the mode kl or logits"
        )
