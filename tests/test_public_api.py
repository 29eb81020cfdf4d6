"""The public surface: its names, its version, and the examples in its docstrings."""

import doctest
import importlib
import importlib.metadata
import inspect
import types

import pytest

import dslo_jax
import torch_bridge


NAMES = {
    "": (
        *("DsloError", "FailedPhoto", "PointMaps", "Segmentation", "Segmenter"),
        *("SegmenterConfig", "__version__", "ops", "point_maps", "segment_logits"),
        "solvers",
    ),
    "solvers": (
        *("Counts", "DISCREPANCIES", "Discrepancy", "Divergence", "Domain", "Fused"),
        *(
            "LabelPropagation",
            "Logits",
            "MaximumVelocity",
            "OptimalPath",
            "PathSolution",
            "Reading",
        ),
        *("Iteration", "iterate"),
        *("Reason", "SinkhornSolution", "Solution", "Transition", "VelocitySolution"),
        *("choose_reading", "discrepancy_of", "doubly_stochastic", "kl_map"),
        *("maximum_velocity", "optimal_path", "reading_of", "sinkhorn"),
    ),
    "cost": ("Work", "path_bytes", "solver_bytes", "solver_work", "velocity_bytes"),
    "bench": ("Effort", "bench_discrepancy"),
    "prompts": (
        *("BACKGROUNDS", "ClassList", "IMAGENET_TEMPLATES", "LazyTokenizer"),
        *("check_templates", "with_background"),
        *("classes_of_options", "embed_names", "load_tokenizer", "parse_classes"),
        *("read_class_file", "split_classes", "tokenize"),
    ),
    "pipeline": (
        *("AdjustableSolver", "Batch", "ClassLabels", "Memory", "Networks"),
        *("Placement", "Room", "check_background"),
        *("ScaledPhoto", "Solved", "SolverInput"),
        *("Steps", "forget_programs", "num_compilations", "place"),
    ),
    "logits": (
        *("ClipLogits", "ClipOptions", "Cuts", "LogitsSource", "Windows"),
        *("load_logits", "load_proxy", "window_features"),
    ),
    "attention": (
        *("AffinityOptions", "AffinitySource", "DiffusionAffinity", "Layers"),
        *("TransformerAffinity", "average_attention", "downscaling_of"),
        *("find_layers", "fitting_size", "latent_layers", "load_affinity"),
        "short_name",
    ),
    "outputs": (
        *("DEFAULT_FILES", "EXPORTS", "FILES", "SCHEMA", "SavedResult"),
        *("chosen_files", "coco", "draw_overlay", "encode_coloured"),
        *("encode_json", "encode_labels", "encode_maps", "encode_overlay"),
        *("hex_colours", "output_path", "palette", "read_labels", "read_results"),
        *("save_labels", "write_export", "write_folder", "write_parquet", "write_tar"),
    ),
    "stablehlo": (
        *("PLATFORMS", "Program", "check_platforms", "check_sizes", "check_target"),
        *("export_discrepancy", "export_segmenter"),
    ),
    "hub": (
        *("Kind", "Mirror", "PRESETS", "Preset", "attention_of", "check_folder"),
        *("find_tokenizer", "kind_of", "resolve", "source_of", "verify"),
    ),
}
"""Public names of each package; a test fails when one is added or lost."""


@pytest.mark.parametrize("package", NAMES)
def test_the_names_of_a_package_are_a_written_list(package):
    module = importlib.import_module(f"dslo_jax.{package}".rstrip("."))
    found = {
        name
        for name, value in inspect.getmembers(module)
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert found == set(NAMES[package]) - {"ops", "solvers", "__version__"}
    assert all(hasattr(module, name) for name in NAMES[package])


def test_a_star_imports_the_public_names():
    found: dict[str, object] = {}
    exec("from dslo_jax import *", found)
    assert set(found) - {"__builtins__"} == set(NAMES[""]) - {"__version__"}


def test_the_names_of_torch_bridge_are_a_written_list():
    """Their modules are imported with the first use, and torch with them."""
    inner = {name for name in vars(torch_bridge) if name not in torch_bridge._HOMES}
    assert set(dir(torch_bridge)) - inner == {
        *("BridgeError", "DSLOHead", "HeadOutput", "save_checkpoint", "to_jax"),
        *("to_torch", "weights_of"),
    }


def test_the_version_is_that_of_the_installed_package():
    assert dslo_jax.__version__ == importlib.metadata.version("dslo-jax")


@pytest.mark.parametrize("name", ["own_logits", "points", "config"])
def test_examples_in_docstrings_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(f"dslo_jax.{name}"))
    assert failed == 0
    assert attempted > 0
