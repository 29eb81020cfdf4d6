"""Time of an evaluation compared with that of segmentation alone.

The same photos are evaluated from files by ``evaluate`` and segmented from memory by
``Segmenter.batch``, in turn.

    python benchmarks/evaluation.py --photos 64 --repeats 3 --save evaluation-cpu
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Record, parse
from PIL import Image

from dslo_jax import Segmenter, scenes
from dslo_jax.bench.timing import Effort, measure
from dslo_jax.evaluation import Journal, Sweep, cells_of, evaluate, load_networks
from dslo_jax.evaluation.datasets import FolderSet
from dslo_jax.evaluation.sweeps.manifest import header_of
from dslo_jax.pairs import find_pair


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> FolderSet:
    """A data set of drawn scenes, photos and masks in files."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for seed in range(count):
        scene = scenes.draw_scene(seed, size=size)
        Image.fromarray(scene.pixels).save(folder / "images" / f"{seed:04}.jpg")
        Image.fromarray(scene.labels).save(folder / "masks" / f"{seed:04}.png")
    (folder / "classes.txt").write_text("\n".join(scenes.NAMES))
    return FolderSet(folder)


def evaluation(
    networks: Any, samples: FolderSet, options: argparse.Namespace, folder: Path
) -> Callable[[], dict[str, Any]]:
    """A function that evaluates all photos and returns the times of its parts."""
    config = find_pair(options.model).config
    cells = cells_of(config, (options.mode,))
    sweep = Sweep(
        networks, samples.classes, list(cells.values()), batch_size=options.batch
    )
    circumstances = describe_nothing(options.batch)

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            header = header_of(samples, config, circumstances)
            journal = Journal(Path(out) / "journal.jsonl", header)
            evaluate(
                sweep,
                samples,
                cells,
                journal,
                Path(out),
                save_labels=options.save_labels,
            )
            return json.loads((Path(out) / "timings.json").read_text())["last_run"]

    return run


def describe_nothing(batch_size: int) -> dict[str, Any]:
    """Empty circumstances for a journal; the result file has the real ones."""
    return {
        "device": {"platform": "", "kind": ""},
        "machine": "",
        "versions": {"jax": "", "dslo-jax": ""},
        "checkpoint": "",
        "batch_size": batch_size,
        "precision": "",
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate and segment the same photos in turn."""
    with tempfile.TemporaryDirectory() as folder:
        samples = write_photos(
            Path(folder) / "data", options.photos, tuple(options.size)
        )
        photos = [sample.photo for sample in samples]
        segmenter = Segmenter.from_pretrained(options.model, mode=options.mode)
        networks = load_networks(find_pair(options.model))
        evaluate_all = evaluation(networks, samples, options, Path(folder))
        runs: list[dict[str, Any]] = []
        calls = {
            "evaluating": lambda: runs.append(evaluate_all()),
            "segmenting": lambda: segmenter.batch(
                photos, samples.classes, batch_size=options.batch
            ),
        }
        found = measure(calls, Effort(options.repeats, seconds=0, budget=math.inf))
    runs = runs[-options.repeats :]  # those before warmed up
    segmenting = found["segmenting"].median_s
    seconds = statistics.median(each["seconds"] for each in runs)
    return {
        "runs": runs,
        "segmenting": found["segmenting"].samples_s,
        "evaluated_per_second": options.photos / seconds,
        "segmented_per_second": options.photos / segmenting,
        "throughput_ratio": segmenting / seconds,
        "shares": {
            name: statistics.median(each[name] / each["seconds"] for each in runs)
            for name in ("reading", "measuring", "writing")
        },
    }


def main() -> None:
    """Time both in turn, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--mode", default="velocity")
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 320))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--save-labels", action="store_true")
    options = parse(parser, repeats=3)
    row = compare(options)
    words = {name: row[name] for name in ("throughput_ratio", "shares")}
    Record("dslo.bench.evaluation.v1", options).add(row, str(words))


if __name__ == "__main__":
    main()
