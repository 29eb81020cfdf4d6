import pytest

from dslo_jax import SegmenterConfig
from dslo_jax.errors import OptionError
from dslo_jax.evaluation import TABLES, Attention, Cell, build_tables
from dslo_jax.models.dense_clip.registry import ATTENTIONS


LAYERS = (
    *("down_blocks.0.attentions.0", "down_blocks.0.attentions.1"),
    *(f"up_blocks.3.attentions.{index}" for index in range(3)),
)
BASE = SegmenterConfig.of(affinity_size=128, short_side=128, source_scale=20)
# What each table may change; everything else must stay as in the base.
VARIED = {
    "components": {
        *("mode", "clip_attention", "suppression", "upsampling", "early_rejection"),
    },
    "divergence": {"mode", "kl_direction"},
    "attention": {"mode", "clip_attention"},
    "versatility": {
        *("mode", "clip_attention", "suppression", "upsampling", "early_rejection"),
    },
    "layers": {"mode", "affinity_layers"},
    "timestep": {"mode", "timestep"},
    "resolution": {"mode", "affinity_size"},
    "foundation": {
        *("mode", "clip_attention", "suppression", "upsampling", "early_rejection"),
    },
    "temperature": {"mode", "affinity_temperature"},
    "threshold": {"mode", "threshold", "criterion"},
    "balancing": {"mode", "balancing_steps"},
    "suppression": {"mode", "suppression", "suppression_threshold"},
    "scale": {"mode", "source_scale"},
    "norm": {"mode", "norm"},
    "epsilon": {"mode", "epsilon"},
    "upsampling": {"mode", "upsampling", "spatial_variance", "range_variance"},
    "short_side": {"mode", "short_side"},
    "rejection": {"mode", "early_rejection", "rejection_share"},
    "oracles": {"mode", "velocity_steps"},
    "grid": {"upsampling", "spatial_variance", "range_variance"},
}


def changes(cell):
    usual = BASE.flat
    return {k for k, v in cell.config.flat.items() if v != usual[k]}


@pytest.mark.parametrize("table", build_tables(BASE, LAYERS), ids=lambda t: t.name)
def test_a_table_varies_one_thing(table):
    varied = set().union(*map(changes, table.cells))
    assert varied <= VARIED[table.name]
    for row in table.rows:
        assert len(row.cells) == len(table.columns)
    assert len({cell.key for cell in table.cells}) == len(set(table.cells))
    has_oracles = any(cell.oracles for cell in table.cells)
    assert has_oracles == (table.name in ("oracles", "grid"))


def test_every_table_is_there_and_all_are_few_enough_cells():
    tables = build_tables(BASE, LAYERS)
    assert [table.name for table in tables] == list(TABLES) == list(VARIED)
    assert len({cell for table in tables for cell in table.cells}) < 260


def test_components_climb_one_at_a_time():
    (table,) = build_tables(BASE, LAYERS, ["components"])
    assert table.columns == ("vanilla", "kk_mean")
    last = [row.cells[-1] for row in table.rows]
    modes = [cell.config.solver.mode for cell in last]
    assert modes == ["logits"] * 2 + ["kl"] * 3 + ["path", "velocity", "fused"]
    steps = [changes(cell) - {"mode"} for cell in last]
    assert steps == [
        {"suppression", "upsampling", "early_rejection"},
        set(),
        {"suppression", "upsampling"},
        {"upsampling"},
        *[set()] * 4,
    ]
    assert all(row.cells[0].config.clip.attention == "vanilla" for row in table.rows)


def test_other_sources_have_their_own_size_and_usual_layers():
    base = BASE.with_options(
        timestep=150, affinity_layers=((LAYERS[1], 1.0),), affinity_temperature=2
    )
    attentions = (Attention("clip", "0123", 256), Attention("sd2-base"))
    components, table = build_tables(
        base, LAYERS, ["components", "foundation"], attentions=attentions
    )
    none, clip, own = table.rows
    assert [row.label for row in table.rows] == ["none", "clip", "sd2-base"]
    assert none.cells == (components.rows[0].cells[0], None)
    for index, mode in enumerate(("velocity", "path")):
        config = base.with_options(mode=mode)
        assert own.cells[index] == Cell(config)
        usual = {"affinity_size": 256, "timestep": 0, "affinity_layers": ()}
        config = config.with_options(**usual)
        assert clip.cells[index] == Cell(config, attention="0123")
        assert clip.cells[index].key != Cell(config).key


def test_a_model_without_diffusion_has_no_tables_of_it():
    names = [table.name for table in build_tables(BASE, ())]
    assert names == [name for name in TABLES if name not in ("layers", "timestep")]
    with pytest.raises(OptionError, match=r"O05.*'timestep'.*diffusion"):
        build_tables(BASE, (), ["norm", "timestep"])


def test_keys_of_cells_never_change():
    """Journals of earlier versions know their measurements by these."""
    assert Cell(SegmenterConfig()).key == "c6bb82870aaa42fa"
    told = Cell(SegmenterConfig.of(mode="path"), frozenset({"seeds"}))
    assert told.key == "d5b319f3a33eadee"


def test_layers_have_the_names_of_the_paper():
    (table,) = build_tables(BASE, LAYERS, ["layers"])
    labels = [row.label for row in table.rows]
    single = ["down0", "down1", "up0", "up1", "up2"]
    assert labels == [*single, "up0 + up1", "all, equal"]
    pair = dict(table.rows[5].cells[0].config.affinity.layers)
    assert pair == {LAYERS[2]: 0.5, LAYERS[3]: 0.5}
    assert sum(dict(table.rows[6].cells[0].config.affinity.layers).values()) == 1


def test_layers_of_the_base_are_a_row_of_their_own_unless_they_are_one():
    choices = {"base": ((LAYERS[1], 0.3), (LAYERS[2], 0.7)), "": ((LAYERS[2], 1.0),)}
    for label, choice in choices.items():
        base = BASE.with_options(affinity_layers=choice)
        (table,) = build_tables(base, LAYERS, ["layers"])
        assert [row.label for row in table.rows][7:] == ([label] if label else [])


def test_sizes_are_around_those_of_the_base():
    for size, sizes in {512: ["256", "512", "768"], 64: ["64", "128"]}.items():
        base = BASE.with_options(affinity_size=size, short_side=336)
        resolution, side = build_tables(base, LAYERS, ["resolution", "short_side"])
        assert [row.label for row in resolution.rows] == sizes
        assert [row.position for row in side.rows] == [168, 224, 280, 336, 392, 448]


def test_numbers_have_a_place_on_an_axis_and_names_have_none():
    threshold, attention = build_tables(BASE, LAYERS, ["threshold", "attention"])
    assert threshold.rows[5].position == 0.3
    labels = ["vanilla", "qk_mean", "qq_mean", "kk_mean", "maskclip"]
    assert [row.label for row in attention.rows] == labels
    assert [row.position for row in attention.rows] == [None] * len(labels)


def test_equal_cells_share_a_key_and_others_do_not():
    one, other = build_tables(BASE, LAYERS, ["threshold", "rejection"])
    base = BASE.with_options(mode="velocity")
    keys = {cell.key for cell in one.cells if cell.config == base}
    off, on, *_ = other.rows
    assert keys == {on.cells[0].key}
    assert off.cells[0].key != on.cells[0].key


@pytest.mark.parametrize("has_proxy", [True, False])
def test_all_logits_that_can_be_computed_are_compared(has_proxy):
    (table,) = build_tables(BASE, LAYERS, ["versatility"], has_proxy=has_proxy)
    labels = [row.label for row in table.rows]
    assert [name for name in ATTENTIONS if name in labels] == labels
    left_out = set(ATTENTIONS) - set(labels)
    assert left_out == (set() if has_proxy else {"proxyclip", "cass"})
    for row in table.rows:
        assert {cell.config.clip.attention for cell in row.cells} == {row.label}
        modes = [cell.config.solver.mode for cell in row.cells]
        assert modes == ["logits", "path", "velocity"]
        assert not row.cells[0].config.source.early_rejection
        assert changes(row.cells[1]) <= {"mode", "clip_attention"}


def test_unknown_table_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"wind.*components, divergence"):
        build_tables(BASE, LAYERS, ["wind"])
