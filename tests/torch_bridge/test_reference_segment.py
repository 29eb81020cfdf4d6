"""The whole reference: its parts fit together, and every option has an effect."""

import dataclasses

import pytest
import torch

from dslo_jax.config import SegmenterConfig
from dslo_jax.solvers import Discrepancy
from torch_bridge import reference


CLASSES = (("cat", "dog"), ("wall",), ("photo of the wall",))
TEMPLATES = ("a photo of a {}.", "the {}")


@pytest.fixture(scope="module")
def run(clip, tokenizer, diffusion):
    generator = torch.Generator().manual_seed(8)

    def segment(**options):
        return reference.segment(
            torch.zeros(45, 70, 3, dtype=torch.uint8),
            CLASSES,
            clip,
            tokenizer,
            diffusion,
            clip_pixels=torch.rand(64, 96, 3, generator=generator.manual_seed(9)),
            affinity_pixels=torch.rand(64, 64, 3, generator=generator.manual_seed(10)),
            templates=TEMPLATES,
            config=SegmenterConfig.of(**options),
        )

    return segment


@pytest.fixture(scope="module")
def plain(run):
    return run()


def test_shapes_and_stages(plain):
    active = len(plain.active)
    assert plain.labels.shape == (45, 70)
    assert plain.logits.shape == (3, 64)
    assert plain.affinity.shape == (64, 64)
    assert plain.source.shape == plain.discrepancy.shape == (active, 64)
    assert plain.upsampled.shape == (active, 45, 70)
    assert set(plain.labels.unique().tolist()) <= set(plain.active.tolist())
    stages = ["text", "clip", "affinity", "logits", "solver", "upsample", "labels"]
    assert list(plain.seconds) == stages
    assert all(seconds > 0 for seconds in plain.seconds.values())


@pytest.mark.slow
def test_it_is_deterministic(run, plain):
    for a, b in zip(plain[:-1], run()[:-1], strict=True):
        assert torch.equal(a, b)


def test_network_options_reach_their_networks(run, plain):
    other = run(
        clip_attention="vanilla",
        timestep=300,
        affinity_layers=(("down_blocks.0.attentions.0", 1.0),),
        affinity_temperature=0.65,
    )
    assert (other.logits - plain.logits).abs().max() > 1e-4
    assert (other.affinity - plain.affinity).abs().max() > 1e-4


def random_scene():
    """Logits of 3 classes, of which the last wins nowhere."""
    generator = torch.Generator().manual_seed(4)
    logits = 0.2 + 0.05 * torch.randn(3, 3, 4, generator=generator)
    logits[2] -= 1
    affinity = torch.softmax(1.5 * torch.randn(30, 30, generator=generator), dim=1)
    photo = torch.randint(0, 256, (21, 34, 3), generator=generator, dtype=torch.uint8)
    return logits, affinity, (5, 6), photo


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "path"},
        {"mode": "kl"},
        {"mode": "fused"},
        {"mode": "logits"},
        {"mode": "path", "norm": "sum"},
        {"mode": "path", "epsilon": 0.5},
        {"threshold": 0.7},
        {"criterion": "increment"},
        {"balancing_steps": 1},
        {"velocity_steps": 1},
        {"suppression": "none"},
        {"suppression_threshold": 0.5},
        {"source_scale": 50.0, "suppression": "none"},
        {"upsampling": "dense"},
        {"upsampling": "bilinear"},
        {"spatial_variance": 0.3},
        {"range_variance": 0.01},
        {"early_rejection": False},
        {"rejection_share": 0.5},
    ],
    ids=str,
)
def test_every_option_reaches_its_stage(options):
    plain = reference.segment_logits(*random_scene())
    config = SegmenterConfig.of(**options)
    other = reference.segment_logits(*random_scene(), config=config)
    assert plain.active.tolist() == [0, 1]
    assert other.upsampled.isfinite().all()
    assert other.labels.shape == plain.labels.shape
    differs = other.upsampled.shape != plain.upsampled.shape
    assert differs or not torch.equal(other.upsampled, plain.upsampled)


def test_without_networks_the_labels_follow_planted_regions():
    """Two halves of a photo that attend to themselves only; one seed each."""
    grid, half = (4, 6), torch.arange(24) % 6 < 3
    affinity = torch.where(half[:, None] == half[None], 1.0, 1e-4)
    affinity = affinity / affinity.sum(dim=1, keepdim=True)
    logits = torch.full((2, 24), 0.1)
    logits[0, 0], logits[1, 23] = 0.3, 0.3
    photo = torch.zeros(16, 24, 3, dtype=torch.uint8)
    photo[:, 12:] = 255
    wanted = torch.zeros(16, 24, dtype=torch.int64)
    wanted[:, 12:] = 1
    for mode in ("velocity", "path", "fused"):
        result = reference.segment_logits(
            logits.reshape(2, *grid),
            affinity,
            grid,
            photo,
            config=SegmenterConfig.of(mode=mode),
        )
        assert torch.equal(result.labels, wanted), mode


def test_ties_go_to_the_lowest_class():
    logits = torch.zeros(3, 2, 2)
    logits[2] = 0.1
    logits[0] = 0.1
    result = reference.segment_logits(
        logits,
        torch.full((4, 4), 0.25),
        (2, 2),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
        config=SegmenterConfig.of(early_rejection=False),
    )
    assert (result.labels == 0).all()


def test_a_discrepancy_that_the_reference_does_not_know_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Mine(Discrepancy):
        name = "mine"

        def solve(self, source, affinity=None):
            raise AssertionError("the reference runs no solver of ours")

    config = SegmenterConfig().with_options(discrepancy=Mine())
    with pytest.raises(ValueError, match="no 'mine'; it knows velocity, path"):
        reference.segment_logits(*random_scene(), config=config)
