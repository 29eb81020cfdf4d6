"""The table of ``docs/how-to/serve.md``, from ``results/page.json``."""

import statistics
from typing import Any

from harness import read


def page_table() -> str:
    """How soon the page answers, and its memory during a flood of requests."""
    result = read("page")
    machine, rounds = result["machine"], result["flood"]["rounds"]
    lines = [
        "| `dslo serve --model demo` | seconds by the clock | seconds of processors |",
        "|---|---|---|",
    ]
    for name, times in result["starts"].items():
        for what in ("loading", "first result"):
            cells = [
                f"{statistics.median(each[key] for each in times):.1f}"
                for key in (what, f"{what}, of processors")
            ]
            lines.append(f"| {what}, {name} | {' | '.join(cells)} |")
    for name, value in result["sliders"].items():
        lines.append(f"| {name} | {value:.2f} | |")
    return "\n".join(
        [
            *lines,
            "",
            "The first result is asked for as soon as the address is printed, while\n"
            "the page still compiles in the background; both times together are those\n"
            "from the command to the picture. By the clock they hold the waiting for\n"
            "other work on the machine; those of the processors do not.",
            "",
            _flood(rounds),
            "",
            f"Medians of {machine['cpu']}, {machine['cores']} cores (other work at "
            f"the start: load {machine['load'] or 0:.1f}), "
            f"{machine['device']['platform']}; jax {machine['versions']['jax']}; "
            f"{machine['started_utc'][:10]}; `{machine['command']}`.",
        ]
    )


def _flood(rounds: list[dict[str, Any]]) -> str:
    sizes = [each["mebibytes"] for each in rounds]
    malformed = sum(sum(each["malformed"].values()) for each in rounds)
    faults = sum(each["malformed"].get("500", 0) for each in rounds)
    done = sum(each["answered"] for each in rounds)
    busy = sum(each["told_to_come_back"] for each in rounds)
    return (
        f"A flood of {len(rounds)} rounds, each with 100 requests at once and 1000\n"
        f"malformed ones: of the former {done} were answered and {busy} told to come\n"
        f"back; of the {malformed} latter {faults} led to a fault of the page. After\n"
        f"the rounds it took {', '.join(map(str, sizes))} MiB."
    )
