"""The networks on the command line, and the options of the method that suit them."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import tyro

from dslo_jax.cli.method import DEFAULTS, Method, check_proxy, config_of, method_options
from dslo_jax.cli.values import OptionalPath, OptionalText
from dslo_jax.cli.weights import readable_checkpoint
from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import Precision
from dslo_jax.errors import DsloError
from dslo_jax.pairs import Pair, find_pair
from dslo_jax.segmenter import Segmenter


Command = TypeVar("Command")
_HELP = ("-h", "--help")


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the commands that run networks on photos.

    Args:
        model: A pair of networks: sd2, dino, dinov2, dinov2-reg or clip, each with
            +clip-b16; sd2+clip-l14; demo (no download, knows only its own drawn
            world); or a folder with the sub-folders clip and diffusion. Each has
            defaults of its own for the options of the method, which --model NAME --help
            shows; those of a folder are in its segmenter.toml.
        clip: Folder, file or repository of a CLIP, instead of the pair's.
        attention: Folder or repository of Stable Diffusion, DINO, DINOv2 or CLIP as
            source of self-attention, instead of the pair's.
        proxy: Folder or repository of DINO or DINOv2, for a --clip-attention that needs
            a second network, such as proxyclip.
        precision: Precision of the networks; auto is float32 on a CPU, bfloat16
            elsewhere.
        device: Where the networks run: auto, cpu, gpu or tpu; gpu:1 is the second GPU.
        offline: Open no network connection, so nothing is downloaded.
        config: A TOML file with options of the method; they win over those that suit
            the model, and options on the command line win over both.
        method: Options of the method; the defaults are those that suit the model.
    """

    model: str = "sd2+clip-b16"
    clip: OptionalText = None
    attention: OptionalText = None
    proxy: OptionalText = None
    precision: Precision = "auto"
    device: str = "auto"
    offline: bool = False
    config: OptionalPath = None
    method: Annotated[
        Method,  # pyright: ignore[reportInvalidTypeForm]
        tyro.conf.arg(name=""),
    ] = DEFAULTS

    @property
    def method_config(self) -> SegmenterConfig:
        """The options of the method.

        Raises:
            OptionError: A value is out of its range (``O01``).
        """
        return config_of(self.method)

    @property
    def pair(self) -> Pair:
        """The networks that are asked for."""
        return find_pair(self.model).with_networks(
            clip=self.clip, attention=self.attention, proxy=self.proxy
        )

    def load(self, **more: Any) -> Segmenter:
        """Load the networks.

        ``Segmenter.warm_up`` is not called: the first photo compiles the same programs,
        for its own size, and nothing else could run meanwhile.

        Args:
            **more: Further arguments of ``Segmenter.from_pretrained``.

        Raises:
            DsloError: As ``Segmenter.from_pretrained``, and where a proxy would have no
                effect (``O05``).
        """
        config = self.method_config
        check_proxy(
            self.proxy, config.clip.needs_proxy, "a --clip-attention with a proxy"
        )
        with readable_checkpoint():
            return Segmenter.from_pretrained(
                self.model,
                clip=self.clip,
                attention=self.attention,
                proxy=self.proxy,
                config=config,
                dtype=self.precision,
                device=self.device,
                offline=self.offline,
                **more,
            )


NetworksField = Annotated[NetworkOptions, tyro.conf.arg(name="")]
"""The type of the field ``networks`` of a command."""


def parse_options(kind: type[Command], command: str, arguments: list[str]) -> Command:
    """Parse the command line, then ``--config``, then the options that suit the model.

    The command line names the model and the file. It is parsed twice: the second time
    with the options of the model and of the file as defaults, which ``--help`` shows.

    Args:
        kind: Dataclass of the options, with the field ``networks``.
        command: Name of the command.
        arguments: The command line behind the name.
    """
    parse = partial(tyro.cli, kind, prog=command)
    first = [word for word in arguments if word not in _HELP]
    asks_help = first != arguments
    fitting: Any = kind  # its field ``networks`` is not known here
    default = fitting()
    try:
        found: Any = parse(args=first, console_outputs=not asks_help)
        method = find_pair(found.networks.model).config
        if found.networks.config is not None:
            method = SegmenterConfig.from_toml(found.networks.config, base=method)
        default = fitting(networks=NetworkOptions(method=method_options(method)))
    except (SystemExit, DsloError):
        if not asks_help:  # help is always shown, then with the usual defaults
            raise
    return parse(args=arguments, default=default)
