"""``dslo serve``: a page in the browser."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from dslo_jax import tuning
from dslo_jax.cli.method import DEFAULTS, Method, config_of, parse_options
from dslo_jax.cli.terminal import results, say
from dslo_jax.cli.weights import readable_checkpoint
from dslo_jax.devices import Precision
from dslo_jax.errors import OptionError
from dslo_jax.pairs import find_pair
from dslo_jax.segmenter import Segmenter
from dslo_jax.serve import Limits


@dataclass(frozen=True)
class Serve:
    """Open a page on which photos, words and options are tried in a browser.

    Only this machine reaches the page, unless another host is given. Photos stay in the
    memory of this process: nothing is written or sent elsewhere. Ctrl-C ends it.

    Args:
        model: As for dslo segment; demo needs no download, and knows only its own drawn
            world.
        clip: As for dslo segment.
        attention: As for dslo segment.
        precision: As for dslo segment.
        device: As for dslo segment.
        offline: Open no network connection to download.
        host: Address of this machine to listen at; others than 127.0.0.1, ::1 and
            localhost need --open-to-network.
        port: Port to listen at; 0 takes a free one.
        open_to_network: Let everybody who reaches the host use the page, without a
            password and without encryption.
        allow_host: Further names under which the page may be opened, such as that of a
            proxy before it.
        max_pixels: Greatest number of pixels of a photo.
        config: As for dslo segment.
        method: Options of the method to begin with; the defaults suit the model.
    """

    model: str = "sd2+clip-b16"
    clip: str | None = None
    attention: str | None = None
    precision: Precision = "auto"
    device: str = "auto"
    offline: bool = False
    host: str = "127.0.0.1"
    port: int = 8080
    open_to_network: bool = False
    allow_host: tuple[str, ...] = ()
    max_pixels: int = Limits.pixels
    config: Path | None = None
    method: Annotated[
        Method,  # pyright: ignore[reportInvalidTypeForm]
        tyro.conf.arg(name=""),
    ] = DEFAULTS


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = parse_options(Serve, "dslo serve", arguments)
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise OptionError(
                "O05",
                f"the page needs {package}, which is not installed; in the folder of "
                'the clone: pip install ".[serve]"',
            )
    # Here and not above: other commands run without the extra.
    from dslo_jax.serve.server import Server, is_loopback, open_socket

    limits = Limits(pixels=options.max_pixels)
    opened = open_socket(
        options.host, options.port, open_to_network=options.open_to_network
    )
    with opened, readable_checkpoint():
        say(errors, "loading networks")
        if find_pair(options.model).world is not None:
            os.environ.setdefault("XLA_FLAGS", tuning.QUICK_XLA_FLAGS)
        segmenter = Segmenter.from_pretrained(
            options.model,
            clip=options.clip,
            attention=options.attention,
            config=config_of(options.method),
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
        )
        server = Server(
            segmenter,
            opened,
            host=options.host,
            allow_hosts=options.allow_host,
            limits=limits,
        )
        say(results(), server.address)
        reach = "only this machine reaches the page"
        if not is_loopback(options.host):
            reach = "everybody in the network can use the page, without a password"
        say(errors, f"{reach}; Ctrl-C ends it")
        server.run()
    return 0
