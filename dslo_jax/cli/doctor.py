"""``dslo doctor``: what works on this machine, and what does not."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dslo_jax.cli.examination import EXTRAS, examine, without_secrets
from dslo_jax.cli.self_test import self_test
from dslo_jax.cli.terminal import escaped, results, say
from dslo_jax.hub.download import readable_size


FAILED = 8
"""Exit code if the self-test fails."""

_WIDTH = 100  # width of the report when the output is not a terminal


@dataclass(frozen=True)
class Doctor:
    """Show what works on this machine: devices, versions, caches, weights, a self-test.

    The self-test segments one drawn scene with the bundled networks, without a
    download. The report names no home folder and no token. Exit code 0: all is well; 8:
    the self-test failed.

    Args:
        self_test: Run the self-test, which takes about 10 seconds.
        device: The device of the self-test: auto, cpu, gpu or tpu; gpu:1 is the second
            GPU.
        json: Print the report as JSON, to be added to the report of a fault.
    """

    self_test: bool = True
    device: str = "auto"
    json: bool = False


def run(arguments: list[str], errors: Console) -> int:
    """Run the command and return the exit code."""
    options = tyro.cli(Doctor, prog="dslo doctor", args=arguments)
    report = examine()
    if options.self_test:
        say(errors, "self-test, about 10 seconds")
        report["self_test"] = without_secrets(self_test(options.device))
    if options.json:
        say(results(), json.dumps(report, indent=1))
    else:
        _print(report)
    passed = not options.self_test or report["self_test"]["passed"]
    return 0 if passed else FAILED


def _print(report: Mapping[str, Any]) -> None:
    """Print the report as one screen."""
    table = Table.grid(padding=(0, 2))
    for name, lines in _rows(report):
        for index, line in enumerate(lines):
            table.add_row("" if index else name, Text(escaped(line)))
    out = results(soft_wrap=False)
    if not out.is_terminal:
        out.width = _WIDTH
    out.print(table)


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The name of each part, and its lines."""
    system, versions = report["system"], report["versions"]
    commit = f", commit {system['commit']}" if system["commit"] else ""
    kind = "virtual environment" if system["in_virtual_environment"] else "system"
    yield "dslo-jax", [f"{versions['dslo-jax']}{commit}"]
    yield "system", [f"{system['system']}, Python {system['python']} ({kind})"]
    memory = _size(system["memory_bytes"])
    free = _size(system["available_bytes"])
    cores = f"{system['cores']} cores, {memory} of memory, {free} available"
    yield "processor", [system["processor"], cores]
    yield "devices", [*_words_of_devices(report["devices"]), *report["unused"]]
    others = {name: found for name, found in versions.items() if name != "dslo-jax"}
    here = [f"{name} {found}" for name, found in others.items() if found]
    lines = [", ".join(here)]
    if absent := [name for name, found in others.items() if not found]:
        lines.append(f"not installed: {', '.join(map(_with_extra, absent))}")
    yield "versions", lines
    yield "cache", _words_of_cache(report["cache"])
    yield "weights", _words_of_weights(report["weights"])
    found = [f"{file}: {state}" for file, state in report["configuration"].items()]
    yield "configuration", found or ["no segmenter.toml in this folder"]
    settings = [f"{name}={value}" for name, value in report["settings"].items()]
    yield "settings", [" ".join(settings) or "none"]
    if "self_test" in report:
        yield "self-test", _words_of_test(report["self_test"])


def _with_extra(package: str) -> str:
    """A package that is missing, and what installs it."""
    extra = EXTRAS.get(package)
    return f"{package} (extra {extra})" if extra else package


def _words_of_devices(devices: Any) -> list[str]:
    if isinstance(devices, str):
        return [f"JAX has no device: {devices}"]
    words = []
    for device in devices:
        memory = device["memory_bytes"]
        more = f", {_size(memory)}" if memory else ""
        words.append(f"{device['name']} ({device['kind']}{more})")
    return words


def _words_of_cache(cache: Mapping[str, Any]) -> list[str]:
    if cache["folder"] is None:
        return ["off: DSLO_CACHE is empty, or there is no home folder"]
    if "error" in cache:
        return [cache["error"]]
    kept = (
        f"{kind}: {found['files']} entries, {_size(found['size'])}"
        for kind, found in cache["content"].items()
    )
    limit, free = _size(cache["limit_bytes"]), _size(cache["free_bytes"])
    return [
        "; ".join(kept),
        f"in {cache['folder']}, at most {limit}; {free} free on this disk",
    ]


def _words_of_weights(weights: Mapping[str, Any]) -> list[str]:
    by_state: dict[str, list[str]] = {}
    for name, state in weights["presets"].items():
        by_state.setdefault(state, []).append(name)
    lines = [f"{state}: {', '.join(names)}" for state, names in by_state.items()]
    offline = "; HF_HUB_OFFLINE is set" if weights["offline"] else ""
    free = f"{_size(weights['free_bytes'])} free on this disk"
    return [*lines, f"in {weights['folder']}; {free}{offline}"]


def _words_of_test(test: Mapping[str, Any]) -> list[str]:
    verdict = "passed" if test["passed"] else "FAILED"
    first = f"{verdict} in {test['seconds']:.1f} s"
    if "error" in test:
        return [first, test["error"]]
    return [
        f"{first} on {test['device']}, the bundled networks on scene {test['scene']}:",
        *(
            f"{mode}: mIoU {100 * found['miou']:.1f}, expected "
            f"{100 * found['expected']:.1f}; {found['seconds']:.1f} s"
            for mode, found in test["modes"].items()
        ),
    ]


def _size(number: int | None) -> str:
    return "unknown" if number is None else readable_size(number)
