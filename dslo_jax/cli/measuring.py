"""Common options and steps of ``dslo eval`` and ``dslo ablate``."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_args

import tyro
from rich.console import Console

from dslo_jax import images
from dslo_jax.cli.terminal import Measuring, interruptible, say, warn_of_padding
from dslo_jax.cli.values import OptionalCount, OptionalPath, OptionalText
from dslo_jax.cli.weights import circumstances_of, readable_checkpoint
from dslo_jax.config import SegmenterConfig
from dslo_jax.devices import Precision
from dslo_jax.errors import OptionError
from dslo_jax.evaluation.datasets import (
    BENCHMARK_PROTOCOLS,
    BENCHMARKS,
    DATASETS,
    BenchmarkProtocol,
    find_dataset,
    protocol_options,
)
from dslo_jax.evaluation.datasets.samples import First, SampleSet
from dslo_jax.evaluation.datasets.scene_set import Protocol, SceneSet
from dslo_jax.evaluation.sweeps.cells import Attention, Cell
from dslo_jax.evaluation.sweeps.networks import Networks, add_attentions, load_networks
from dslo_jax.evaluation.sweeps.records import Completeness, Tally
from dslo_jax.evaluation.sweeps.run import OnSkip, Watch
from dslo_jax.evaluation.sweeps.sweep import Sweep
from dslo_jax.pairs import Pair, find_pair
from dslo_jax.pipeline.stages import listen
from dslo_jax.runs import Journal


SCENES = "scenes"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Options of the commands that measure on photos with true labels.

    Args:
        root: Folder of the data set; not needed for scenes.
        label_folder: Folder of the labels, for a benchmark that has several, such as
            SegmentationClassAug.
        seeds: FIRST:END, the seeds of the scenes; those below 10000 were not used for
            training.
        protocol: How it is measured. Scenes: all classes, or things and a background
            (foreground). Benchmarks: all as the paper does, or with the size, windows,
            background words and threshold of a published method.
        size: HEIGHTxWIDTH of the scenes in pixels, such as 128x160. Without it, each
            seed chooses one of eight sizes, and far more programs are compiled.
        limit: Greatest number of photos; the first ones are used.
        max_pixels: Greatest number of pixels of a photo; a larger one is left out.
        model: A pair of networks, as for dslo segment, or a folder with the sub-folders
            clip and diffusion.
        proxy: Folder or repository of DINO or DINOv2, for logits that need a second
            network, such as proxyclip.
        config: A TOML file with options of the method; they win over those that suit
            the model and the data set.
        batch: Number of photos at once on the device.
        precision: Precision of the networks; auto is float32 on a CPU, bfloat16
            elsewhere.
        device: Where the networks run: auto, cpu, gpu or tpu; gpu:1 is the second GPU.
        devices: How many devices share the photos of a batch, from --device on: a
            number, or all. 2x4 is 8 devices in 2 rows: the rows share the photos, and
            the 4 devices of a row share the classes.
        offline: Open no network connection.
        strict: Stop at the first photo that cannot be read, instead of leaving it out.
    """

    root: OptionalPath = None
    label_folder: OptionalText = None
    seeds: str = "0:500"
    protocol: Protocol | BenchmarkProtocol = "all"
    size: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    limit: OptionalCount = None
    max_pixels: int = images.MAX_PIXELS
    model: str = "sd2+clip-b16"
    proxy: OptionalText = None
    config: OptionalPath = None
    batch: int = 8
    precision: Precision = "auto"
    device: str = "auto"
    devices: str = "1"
    offline: bool = False
    strict: bool = False


class Loaded(NamedTuple):
    """Networks, and their description for the manifest.

    Attributes:
        networks: The networks, on their device.
        circumstances: The result of ``manifest.describe``.
    """

    networks: Networks
    circumstances: dict[str, Any]


def find_samples(options: Measure, dataset: str) -> SampleSet:
    """Find the photos of the options, without reading them.

    Raises:
        DsloError: An option cannot be used, or the data set was not found.
    """
    for name in ("batch", "limit", "max_pixels"):
        value = getattr(options, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise OptionError("O01", f"--{flag} {value}; expected at least 1")
    samples = _all_samples(options, dataset)
    return samples if options.limit is None else First(samples, options.limit)


def warn_of_part(console: Console, samples: SampleSet) -> None:
    """Warn that a benchmark has not all its photos, before anything takes time."""
    described = samples.describe()
    found, whole = len(samples), described.get("published_photos", len(samples))
    if found != whole:
        say(
            console,
            f"warning: {found} photos; {described['name']} is published with {whole}, "
            "and only scores on all of them compare",
        )


def find_config(options: Measure, dataset: str) -> Pair:
    """Find the pair of networks, with the options that suit it and the data set.

    Options of ``--config`` win, then those of the protocol. The short side of a
    benchmark is used unless the model has one of its own.

    Raises:
        OptionError: There is no such pair, or a configuration file cannot be used.
    """
    pair = find_pair(options.model)
    config = pair.config
    benchmark = BENCHMARKS.get(dataset)
    usual = SegmenterConfig().clip.short_side
    if benchmark is not None and config.clip.short_side == usual:
        config = config.with_options(short_side=benchmark.short_side)
    protocol = _benchmark_protocol(options, dataset)
    if protocol is not None:
        config = config.with_options(**protocol_options(protocol, dataset))
    if options.config is not None:
        config = SegmenterConfig.from_toml(options.config, base=config)
    return pair.with_networks(proxy=options.proxy)._replace(config=config)


def load(options: Measure, pair: Pair, *, with_proxy: bool) -> Loaded:
    """Load the networks.

    Args:
        options: The options of the command.
        pair: From ``find_config``.
        with_proxy: Whether logits that need a second network are measured.

    Raises:
        CheckpointError: A checkpoint is missing, damaged, or not of this kind.
        DeviceError: There is no such device (``D02``).
    """
    with readable_checkpoint():
        networks = load_networks(
            pair,
            dtype=options.precision,
            device=options.device,
            devices=options.devices,
            offline=options.offline,
        )
        circumstances = circumstances_of(
            pair,
            batch_size=options.batch,
            precision=options.precision,
            device=options.device,
            with_proxy=with_proxy,
        )
    warn_of_padding(options.batch, networks.placement.parts)
    return Loaded(networks, circumstances)


def parse_attentions(named: Sequence[str]) -> dict[str, str]:
    """Read the places of further sources of attention, by their names.

    Args:
        named: Texts NAME=PLACE, or places that are also the names.

    Raises:
        OptionError: A name is empty, or given twice.
    """
    places: dict[str, str] = {}
    for text in named:
        name, _, place = text.partition("=")
        if not name or name in places:
            raise OptionError(
                "O01", f"--sources {text!r}; expected NAME=FOLDER, each name once"
            )
        places[name] = place or name
    return places


def load_attentions(
    options: Measure, pair: Pair, networks: Networks, places: Mapping[str, str]
) -> tuple[Networks, tuple[Attention, ...]]:
    """Load further sources of attention; see ``add_attentions``.

    Raises:
        CheckpointError: A checkpoint is missing, damaged, or not of this kind.
    """
    with readable_checkpoint():
        return add_attentions(
            networks,
            pair,
            places,
            dtype=options.precision,
            device=options.device,
            offline=options.offline,
        )


@contextmanager
def progress(
    console: Console,
    sweep: Sweep,
    samples: SampleSet,
    journal: Journal,
    shown: Mapping[str, Cell],
) -> Iterator[tuple[Watch, OnSkip]]:
    """Show the progress of a run; let Ctrl-C end it between two batches.

    Args:
        console: The console of the progress.
        sweep: The sweep that is measured.
        samples: The photos.
        journal: Measurements of earlier runs and of this one.
        shown: Cells whose mIoU is shown, by their names.

    Yields:
        Two functions: one to call with the progress, one with photos that cannot be
        read.
    """
    keys = [cell.key for cell in sweep.cells]
    known = Completeness.of(journal.records, keys, samples.names)
    labels = {label: cell.key for label, cell in shown.items()}
    tally = Tally(journal.records, labels, len(samples.classes))
    with (
        Measuring(console, len(samples), len(known.scored), tally) as measuring,
        listen(measuring.stage),
        interruptible(console, measuring) as watch,
    ):
        yield watch, measuring.skipped


def _all_samples(options: Measure, dataset: str) -> SampleSet:
    protocol = _benchmark_protocol(options, dataset)
    if dataset == SCENES:
        return SceneSet(
            _seeds(options.seeds),
            "foreground" if options.protocol == "foreground" else "all",
            photo_size(options.size) if options.size else None,
        )
    if dataset not in DATASETS:
        known = ", ".join((SCENES, *DATASETS))
        raise OptionError("O03", f"no data set {dataset!r}; there are {known}")
    if options.root is None:
        raise OptionError(
            "O05", f"the data set {dataset} needs its folder; pass it with --root"
        )
    return find_dataset(
        dataset,
        options.root,
        label_folder=options.label_folder,
        protocol=protocol,
        max_pixels=options.max_pixels,
    )


def _benchmark_protocol(options: Measure, dataset: str) -> str | None:
    """The protocol of a published method; ``None`` for any other.

    Raises:
        OptionError: The protocol does not belong to the data set (``O01``).
    """
    known = {"all"}
    if dataset == SCENES:
        known = set(get_args(Protocol))
    elif dataset in BENCHMARKS:
        known |= set(BENCHMARK_PROTOCOLS)
    if options.protocol not in known:
        listed = ", ".join(sorted(known))
        raise OptionError(
            "O01",
            f"--protocol {options.protocol} has no meaning for {dataset}; expected one "
            f"of {listed}",
        )
    return options.protocol if options.protocol in BENCHMARK_PROTOCOLS else None


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        seeds = range(int(first), int(end))
    except ValueError as error:
        raise OptionError(
            "O03", f"seeds = {text!r}; expected FIRST:END, as in 0:500"
        ) from error
    if not seeds or seeds.start < 0:
        raise OptionError("O01", f"seeds = {text!r} is empty or negative; try 0:500")
    return seeds


def photo_size(text: str) -> tuple[int, int]:
    """Height and width of ``HEIGHTxWIDTH``.

    Raises:
        OptionError: The text has another form, or a side is below 32 (``O01``).
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(height := int(match[1]), width := int(match[2])) < 32:
        raise OptionError(
            "O01",
            f"size = {text!r}; expected HEIGHTxWIDTH of 32 or more, as in 128x160",
        )
    return height, width
