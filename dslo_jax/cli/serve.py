"""``dslo serve``: a page in the browser."""

import importlib.util
import os
from dataclasses import dataclass

from rich.console import Console

from dslo_jax import tuning
from dslo_jax.cli.networks import NetworkOptions, NetworksField, parse_options
from dslo_jax.cli.terminal import results, say
from dslo_jax.cli.values import Names
from dslo_jax.errors import OptionError
from dslo_jax.serve import Limits


@dataclass(frozen=True)
class Serve:
    """Open a page on which photos, words and options are tried in a browser.

    Only this machine reaches the page, unless another host is given. Photos stay in the
    memory of this process: nothing is written or sent elsewhere. Ctrl-C ends it.

    Args:
        host: Address of this machine at which the page is opened; others than
            127.0.0.1, ::1 and localhost need --open-to-network.
        port: Port at which the page is opened; 0 takes a free one.
        open_to_network: Let everybody who reaches the host use the page, without a
            password and without encryption.
        allow_host: Further names under which the page may be opened, such as that of a
            server that passes requests on to it.
        max_pixels: Greatest number of pixels of a photo; a larger one is refused.
        networks: Networks, and options of the method to begin with.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    open_to_network: bool = False
    allow_host: Names = ()
    max_pixels: int = Limits.pixels
    networks: NetworksField = NetworkOptions()


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
    with opened:
        say(errors, "loading networks")
        if options.networks.pair.world is not None:  # before JAX makes its devices
            os.environ.setdefault("XLA_FLAGS", tuning.QUICK_XLA_FLAGS)
        segmenter = options.networks.load()
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
