"""How published methods measure the benchmarks: sizes, windows, background.

The values and where they are from are in ``protocols.toml``.
"""

import functools
import importlib.resources
import tomllib
from typing import Any, Literal, get_args

from dslo_jax.errors import OptionError


BenchmarkProtocol = Literal["sclip", "naclip", "clearclip", "proxyclip", "sc-clip"]
"""Methods whose protocol a benchmark can be measured with."""

BENCHMARK_PROTOCOLS: tuple[str, ...] = get_args(BenchmarkProtocol)
_COMMON, _WORDS = "options", "background"
_PACKAGE = "dslo_jax.evaluation.datasets"


def protocol_options(protocol: str, benchmark: str) -> dict[str, Any]:
    """Options with which a method measures a benchmark, by their flat names.

    The attention of CLIP's last block is not among them, nor are refinements of the
    labels that only the method has.

    Args:
        protocol: One of ``BENCHMARK_PROTOCOLS``.
        benchmark: One of ``BENCHMARKS``.

    Raises:
        OptionError: There is no such protocol (``O03``), or the method was not measured
            on the benchmark (``O01``).
    """
    method = _method(protocol)
    if benchmark == "loveda":
        raise OptionError(
            "O01", f"protocol = {protocol!r} has no settings for {benchmark}; use 'all'"
        )
    return method[_COMMON] | method.get(benchmark, {})


def protocol_background(protocol: str, benchmark: str) -> str | None:
    """The words of class 0, one of ``prompts.BACKGROUNDS``.

    Args:
        protocol: As for ``protocol_options``.
        benchmark: As for ``protocol_options``.

    Returns:
        ``None`` for the words of the class file of the benchmark.

    Raises:
        OptionError: There is no such protocol (``O03``).
    """
    return _method(protocol).get(_WORDS, {}).get(benchmark)


def _method(protocol: str) -> dict[str, Any]:
    if protocol not in BENCHMARK_PROTOCOLS:
        known = ", ".join(map(repr, BENCHMARK_PROTOCOLS))
        raise OptionError("O03", f"protocol = {protocol!r}; expected one of {known}")
    return _read()[protocol]


@functools.cache
def _read() -> dict[str, Any]:
    resource = importlib.resources.files(_PACKAGE) / "protocols.toml"
    return tomllib.loads(resource.read_text(encoding="utf-8"))
