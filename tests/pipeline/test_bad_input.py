"""Errors that people see for a bad photo, class list, checkpoint, option or disk."""

import errno
import io
import json
import os
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from dslo_jax import Segmenter, SegmenterConfig, cli, hub, outputs
from dslo_jax.errors import SolverError
from dslo_jax.pipeline import Batch, checks
from dslo_jax.solvers import Reason, Solution
from tests.pipeline.conftest import FAST, QUICK


CLASSES = ("--classes", "cat, sofa")
CLIP = "clip/model.safetensors"
UNET = "diffusion/unet/diffusion_pytorch_model.safetensors"


def flat(text):
    return " ".join(text.split())


# ---------------------------------------------------------------- photos


def test_photos_that_are_not_there(run, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "photos" / "deep"
    deep.mkdir(parents=True)
    shutil.copy(photo, deep)
    for name, said in (
        ("foto.png", "there is no file 'foto.png'"),
        ("phot.png", "did you mean 'photo.png' or 'photos'?"),
        ("*.webp", "nothing matches the pattern '*.webp'"),
        ("photos", "no photo found in 'photos'; to search folders below, use --rec"),
    ):
        code, _, err = run(name, *CLASSES)
        assert code == 3
        assert "[I01]" in err
        assert said in flat(err)
    assert not (tmp_path / "out").exists()


def test_a_named_pipe_is_refused_and_one_in_a_folder_skipped(run, photo, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photo, folder / "good.png")
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    code, out, err = run(pipe, photo, *CLASSES, *FAST)
    assert code == cli.PARTIAL
    assert f"[I01] '{pipe}' is a pipe, not a photo; give a regular file" in err
    assert "photo.png ->" in out
    code, out, err = run(folder, *CLASSES, *FAST)
    assert code == 0
    assert f"skipped {pipe}: a pipe" in err
    assert "good.png ->" in out


def test_only_bad_photos_give_the_code_of_the_first(run, tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    code, _, err = run(path, *CLASSES, *FAST)
    assert code == 3
    assert "[I03]" in err


def test_what_was_converted_is_told(run, tmp_path, make_photo):
    frames = [Image.fromarray(make_photo(50, 75, seed)) for seed in range(3)]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    code, _, err = run(path, "--classes", "cat", *FAST)
    assert code == 0
    assert "note: frame 1 of 3" in err
    assert "note: one class only: it has no rival" in err
    notes = json.loads((tmp_path / "out/moving.gif/segmentation.json").read_text())
    assert "frame 1 of 3" in notes["notes"]


def test_results_never_leave_the_output_folder(run, photo, tmp_path, make_photo):
    other = tmp_path / "other.png"
    Image.fromarray(make_photo(50, 75, 1)).save(other)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.png").symlink_to(tmp_path / "elsewhere")
    code, out, err = run(photo, other, *CLASSES, *FAST)
    assert code == cli.PARTIAL
    assert "[I08]" in err
    assert "outside the output folder" in err
    assert "other.png ->" in out
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name", ["\x1b[31mred\a.png", "a\n[1] fake.png", "\u202egpj.png", "b\udcff.png"]
)
def test_file_names_steer_no_terminal(run, photo, tmp_path, name):
    path = tmp_path / name
    photo.rename(path)
    code, out, err = run(path, "--classes", "cat, 👩‍🚀", *FAST)
    assert code == 0
    assert ascii(name)[1:-1] in out
    _, more, missing = run(tmp_path / f"not {name}", *CLASSES)
    assert "[I01]" in missing
    for steering in ("\x1b", "\a", "\u202e", "\udcff", "\n[1] fake"):
        assert steering not in out + err + more + missing


def test_a_terminal_that_lacks_the_letters(checkpoint, photo, tmp_path, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    arguments = ["segment", str(photo), "--classes", "👍", "--out", str(tmp_path / "o")]
    assert cli.main([*arguments, "--model", str(checkpoint), *QUICK, *FAST]) == 0
    narrow.flush()
    assert b"\\U0001f44d 100.0%" in narrow.buffer.getvalue()


# ---------------------------------------------------------------- checkpoints


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def pointer(folder):
    (folder / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")


def truncated(folder):
    (folder / CLIP).write_bytes((folder / CLIP).read_bytes()[:-9])


def pickled(folder):
    (folder / CLIP).unlink()
    torch.save({"a": shutil.copytree}, folder / "clip" / "pytorch_model.bin")


def not_a_number(folder):
    tensors = load_file(folder / CLIP)
    tensors["visual_projection.weight"][0, :2] = np.nan
    save_file(tensors, folder / CLIP)


def reshaped(folder):
    tensors = load_file(folder / CLIP)
    tensors["visual_projection.weight"] = np.zeros((3, 5), np.float32)
    save_file(tensors, folder / CLIP)


def lost_shard(folder):
    (folder / CLIP).unlink()
    index = {"weight_map": {"a": "../model-00002-of-00002.safetensors"}}
    (folder / f"{CLIP}.index.json").write_text(json.dumps(index))


def change_config(part, **fields):
    def change(folder):
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (pointer, (), ["[W03]", "git-lfs pointer", "run: git lfs pull"]),
        (truncated, FAST, ["[W04]", "model.safetensors is damaged"]),
        (
            pickled,
            FAST,
            ["[W05]", "pytorch_model.bin", "'shutil.copytree'", "It was not run"],
        ),
        (not_a_number, FAST, ["[W07]", "visual_projection.weight: 2 of", "NaN"]),
        (
            reshaped,
            FAST,
            ["[W04]", "visual_projection.weight: shape (3, 5) in the file"],
        ),
        (lost_shard, FAST, ["[W08]", "names '../model-00002-of-00002.safetensors'"]),
        (
            change_config("diffusion/unet", addition_embed_type="text_time"),
            (),
            ["[W06]", "Stable Diffusion 1", "addition_embed_type"],
        ),
        (
            change_config("diffusion/unet", cross_attention_dim=768),
            (),
            ["[W06]", "32 channels, wanted cross_attention_dim 768"],
        ),
        (
            change_config("clip", model_type="siglip"),
            FAST,
            ["[W06]", "model_type is 'siglip', expected 'clip'"],
        ),
    ],
)
def test_bad_checkpoints(run, photo, copy, spoil, options, words):
    spoil(copy)
    code, out, err = run(photo, *CLASSES, *options, model=copy)
    assert code == 4
    for word in words:
        assert word in flat(err)
    assert "->" not in out


def test_checkpoints_in_each_others_place(run, photo, checkpoint):
    code, _, err = run(photo, *CLASSES, "--attention", checkpoint)
    assert code == 4
    assert "holds clip, diffusion; expected a diffusers pipeline (unet/, vae/)" in err
    code, _, err = run(photo, *CLASSES, *FAST, "--clip", checkpoint / "diffusion")
    assert code == 4
    assert "this is a diffusion pipeline, pass it with --attention" in err


def test_half_precision_weights_are_converted(copy):
    tensors = load_file(copy / CLIP)
    half = {name: value.astype(jnp.bfloat16) for name, value in tensors.items()}
    save_file(half, copy / CLIP)
    other = Segmenter.from_pretrained(copy, mode="logits")
    state = other.networks.logits.state
    kernel = state["clip"]["visual_projection"]["kernel"].get_value()
    rounded = half["visual_projection.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(kernel, rounded)


def test_an_unreadable_checkpoint(run, photo, monkeypatch, capsys):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "clip/config.json")

    monkeypatch.setattr(Segmenter, "from_pretrained", refuse)
    code, _, err = run(photo, *CLASSES)
    assert code == 4
    assert "[W01]" in err
    assert "'clip/config.json' cannot be read: Permission denied; check its" in err
    monkeypatch.setattr(hub, "resolve", refuse)
    assert cli.main(["weights", "clip-b16"]) == 4
    assert "[W01]" in capsys.readouterr().err


def test_weights_says_where_and_names_what_it_does_not_know(checkpoint, capsys):
    assert cli.main(["weights", str(checkpoint / "clip")]) == 0
    assert str(checkpoint / "clip") in capsys.readouterr().out
    assert cli.main(["weights", "clip-b17"]) == 4
    told = capsys.readouterr().err
    assert "[W01]" in told
    assert "did you mean 'clip-b16'?" in told
    assert "sd2-base" in told  # presets of all kinds
    assert cli.main(["weights", "demo"]) == 0
    assert "a part of this package" in capsys.readouterr().out


# ---------------------------------------------------------------- options


def test_a_name_that_no_file_system_takes(run, photo):
    code, _, err = run(photo, *CLASSES, model="x" * 5000)
    assert code == 2
    assert "neither a folder nor a known pair; pairs: sd2+clip-b16" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\nepsilom = 1\n", ["[O02]", "config.toml:2", "did you mean 'epsilon'"]),
        ('epsilon = "big"\n', ["[O03]", "config.toml:1", "a number"]),
        ("path_steps = 0\n", ["[O01]", "config.toml:1", "path_steps = 0"]),
        ("epsilon = \n", ["[O04]", "config.toml", "line 1"]),
    ],
)
def test_bad_configuration_files_run_nothing(run, photo, tmp_path, text, words):
    path = tmp_path / "config.toml"
    path.write_text(text)
    code, _, err = run(photo, *CLASSES, "--config", path)
    assert code == 2
    for word in words:
        assert word in flat(err)
    assert not (tmp_path / "out").exists()


def test_a_configuration_file_without_a_name(capsys):
    assert cli.main(["segment", "photo.png", *CLASSES, "--config"]) == 2
    assert "--config" in capsys.readouterr().err


@pytest.mark.slow
def test_an_epsilon_that_no_kernel_survives(run, photo):
    code, _, err = run(photo, *CLASSES, "--mode", "path", "--epsilon", "1e-9")
    assert code == 3
    assert "[S03]" in err
    assert "epsilon = 1e-09 (0.0125 works with every affinity)" in err
    assert Reason.EPSILON_TOO_SMALL.sentence in err


@pytest.mark.parametrize("mode", ["velocity", "path", "fused"])
def test_what_has_no_solution_is_blamed_on_what_was_used(mode):
    config = SegmenterConfig.of(mode=mode, affinity_temperature=1e-30)
    nothing = np.zeros((1, 2, 4), np.float32)
    reason = Reason.UNBALANCEABLE
    status = (0, np.nan, False, reason)
    solved = Solution(nothing, *(np.full((1, 2), each) for each in status))
    with pytest.raises(SolverError, match=r"S03.*temperature = 1e-30") as caught:
        checks.check_maps(
            solved,
            np.array([[1, 0]]),
            np.array([2]),
            ("cat", "sofa"),
            config.discrepancy,
            config.affinity,
        )
    assert "'sofa'" in str(caught.value)
    assert reason.sentence in str(caught.value)
    assert ("epsilon = 0.1" in str(caught.value)) == (mode != "velocity")


def test_classes_that_lose_everywhere_are_listed(run, photo, tmp_path):
    names = [f"thing {number}" for number in range(65)]  # one more than patches
    options = ("--mode", "kl", "--suppression-threshold", "1")  # one patch a class
    code, _, _ = run(photo, "--classes", ",".join(names), *options)
    assert code == 0
    summary = json.loads((tmp_path / "out/photo.png/segmentation.json").read_text())
    areas = {c["name"]: c["area"] for c in summary["classes"]}
    rejected = [c["name"] for c in summary["classes"] if c["rejected"]]
    assert list(areas) == names
    assert 0 < len(rejected) < len(names)
    assert all(areas[name] == 0 for name in rejected)


# ---------------------------------------------------------------- disk and memory


def test_an_output_folder_that_is_a_file(run, photo, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, err = run(photo, *CLASSES)
    assert code == 6
    assert "[O06] cannot write" in err
    assert "choose another folder with --out" in err
    assert "loading" not in err  # nothing was computed in vain
    assert (tmp_path / "out").read_text() == "mine"


def test_a_read_only_output_folder(run, photo, monkeypatch):
    open_file = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith(".lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    code, _, err = run(photo, *CLASSES)
    assert code == 6
    assert f"{os.strerror(errno.EROFS)}" in err


def test_a_full_disk_keeps_what_was_written(run, photo, tmp_path, monkeypatch):
    second = tmp_path / "second.png"
    shutil.copy(photo, second)
    write = outputs.write_folder

    def write_once(folder, files):
        if folder.name == "second.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(folder, files)

    monkeypatch.setattr(outputs, "write_folder", write_once)
    code, out, err = run(photo, second, *CLASSES, *FAST)
    assert code == 6
    assert "[O06] cannot write" in err
    assert os.strerror(errno.ENOSPC) in err
    assert "results reported above are kept" in err
    assert out.count(" -> ") == 1
    assert (tmp_path / "out" / "photo.png" / "segmentation.json").is_file()


def test_too_little_memory(run, photo, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 188. PiB")

    monkeypatch.setattr(Batch, "solve", fail)
    code, _, err = run(photo, *CLASSES, *FAST)
    assert code == 5
    assert f"{photo}: [D01]" in err
    assert "(Unable to allocate 188. PiB)" in err
