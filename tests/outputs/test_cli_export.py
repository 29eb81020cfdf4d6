import shutil
import tarfile

import pytest

from dslo_jax import cli


@pytest.mark.parametrize("kind", ["coco", "cvat", "labelstudio"])
def test_a_run_is_exported(run, tmp_path, kind, capsys):
    target = tmp_path / "export"
    assert cli.main(["export", kind, str(run), str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert any(target.iterdir())


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_files_of_many_photos(run, tmp_path, kind):
    target = tmp_path / "export"
    assert cli.main(["export", kind, str(run), str(target), "--photos", "1"]) == 0
    names = sorted(path.name for path in target.iterdir())
    assert names == [f"photos-00000{i}.{kind}" for i in range(2)]


def test_members_are_named_after_photos(run, tmp_path):
    target = tmp_path / "export"
    assert cli.main(["export", "tar", str(run), str(target), "--photos", "1"]) == 0
    with tarfile.open(target / "photos-000000.tar") as archive:
        members = archive.getnames()
    assert "cat%2Epng.labels.png" in members
    assert not any("deep" in member for member in members)


def test_files_of_an_earlier_export_are_not_mixed_in(run, tmp_path, capsys):
    command = ["export", "tar", str(run), str(tmp_path / "export")]
    assert cli.main([*command, "--photos", "1"]) == 0
    before = sorted(tmp_path.joinpath("export").iterdir())
    assert cli.main([*command, "--photos", "2"]) == 6
    assert "holds files" in capsys.readouterr().err
    assert sorted(tmp_path.joinpath("export").iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "photos", "words"),
    [("voc", "2", "export 'voc'"), ("tar", "0", "photos = 0")],
)
def test_options_that_cannot_be_used(run, tmp_path, capsys, kind, photos, words):
    target = tmp_path / "export"
    assert cli.main(["export", kind, str(run), str(target), "--photos", photos]) == 2
    assert words in capsys.readouterr().err
    assert not target.exists()


def test_a_wrong_format_is_told_with_the_nearest(capsys):
    assert cli.main(["export", "stablhlo"]) == 2
    assert "Did you mean 'export stablehlo'?" in capsys.readouterr().err


def test_results_without_a_file_that_others_have_are_told(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "cat.png" / "labels.png").unlink()
    command = ["export", "tar", str(tmp_path / "run"), str(tmp_path / "export")]
    assert cli.main(command) == 0
    told = capsys.readouterr().err
    assert "1 of 2 results have no labels.png (cat.png)" in told
    assert "1 of 2 results have no overlay.png (deep/b.c.jpg)" in told
    assert "maps.npz" not in told  # both have them


def test_a_folder_without_results(tmp_path, capsys):
    assert cli.main(["export", "tar", str(tmp_path), str(tmp_path / "export")]) == 2
    assert "holds no results" in capsys.readouterr().err
