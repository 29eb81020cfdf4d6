"""Photos in tar archives and Parquet files, and what a search leaves alone."""

import io
import os
import pickle
import random
import struct
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures import encode, noise

from dslo_jax.errors import ImageError
from dslo_jax.images import find_photos


def picture(seed):
    return encode(noise(4, 6, seed=seed), "PNG")


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def same(photo, seed):
    np.testing.assert_array_equal(photo.pixels, noise(4, 6, seed=seed))
    return True


class TestTar:
    @pytest.fixture
    def shard(self, tmp_path):
        members = [
            ("001.jpg", picture(1)),
            ("001.txt", b"a cat"),
            ("001.seg.png", picture(2)),
            ("a/002.png", picture(3)),
            ("._002.png", b"of macOS"),
        ]
        return write_tar(tmp_path / "shard-000000.tar", members)

    def test_members_with_the_suffix_of_an_image(self, shard):
        found = find_photos(shard)
        assert [each.name for each in found] == [
            "shard-000000.tar/001.jpg",
            "shard-000000.tar/001.seg.png",
            "shard-000000.tar/a/002.png",
        ]
        for seed, each in reversed(list(enumerate(found, start=1))):
            photo = each.read()
            assert same(photo, seed)
            assert each.origin == str(photo.path) == f"{shard.parent}/{each.name}"
        assert [each.origin for each in find_photos(shard.parent)] == [
            each.origin for each in found
        ]
        assert sorted(p.name for p in shard.parent.iterdir()) == [shard.name]

    def test_places_may_go_to_other_processes(self, shard):
        found = pickle.loads(pickle.dumps(find_photos(shard)))
        assert same(found[2].read(), 3)
        with pytest.raises(ImageError, match=r"I04.*001\.jpg"):
            found[0].read(max_pixels=23)

    @pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_hostile_and_long_names(self, tmp_path, format_):
        names = [
            "../../etc/x.png",
            "/etc/x.png",
            "a\nb.png",
            "猫" * 90 + ".png",
            "A.PNG",
        ]
        members = [(name, picture(n)) for n, name in enumerate([*names, "a.png"])]
        write_tar(tmp_path / "s.tar", members, format=format_)
        found = find_photos(tmp_path / "s.tar")
        assert [each.name for each in found[:3]] == [
            "s.tar/_/_/etc/x.png",
            "s.tar/_/etc/x.png",
            "s.tar/a_b.png",
        ]
        assert [each.name for each in found[4:]] == ["s.tar/A.PNG", "s.tar/a~2.png"]
        assert all(same(each.read(), n) for n, each in enumerate(found))
        assert all(".." not in str(each.read().path) for each in found)

    def test_a_name_twice(self, tmp_path):
        write_tar(tmp_path / "s.tar", [("a.png", picture(0)), ("a.png", picture(1))])
        first, second = find_photos(tmp_path / "s.tar")
        assert (first.name, second.name) == ("s.tar/a.png", "s.tar/a~2.png")
        assert same(second.read(), 1)

    def test_links_and_devices_lead_nowhere(self, tmp_path):
        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                info = tarfile.TarInfo("a.png")
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
        skipped = {}
        with pytest.raises(ImageError, match=r"I01.*no photo found"):
            find_photos(tmp_path / "s.tar", on_skip=lambda p, r: skipped.update({p: r}))
        assert skipped == {tmp_path / "s.tar": "an archive without images"}

    def test_what_is_cut_short_is_told_and_the_rest_is_read(self, shard):
        content = shard.read_bytes()
        shard.write_bytes(content[: 3 * 512 + 512 + 700])
        *whole, cut = find_photos(shard)
        assert same(whole[0].read(), 1)
        with pytest.raises(ImageError, match=r"I03.*damaged after 3 members"):
            cut.read()
        found = find_photos(write_tar(shard, [("1.png", picture(1))]))
        shard.write_bytes(shard.read_bytes()[:600])
        with pytest.raises(ImageError, match=r"I03.*1\.png' is cut short.*\d bytes"):
            found[0].read()

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.tar", b"", "I03.*no tar archive"),
            ("a.tar", b"nonsense" * 100, "I03.*no tar archive"),
            ("a.tar", b"\x1f\x8b\x08\0\0\0", "I02.*gunzip"),
            ("a.tar.gz", b"\x1f\x8b\x08\0\0\0", "I02.*gunzip"),
            ("a.tgz", b"\x1f\x8b\x08\0\0\0", "I02.*gunzip"),
        ],
    )
    def test_no_archive(self, tmp_path, name, content, said):
        (tmp_path / name).write_bytes(content)
        (found,) = find_photos(tmp_path / name)
        with pytest.raises(ImageError, match=said):
            found.read()

    def test_a_header_that_leads_back_ends(self, tmp_path):
        """A negative size, as GNU writes numbers, would read one header for ever."""
        content = bytearray(
            write_tar(tmp_path / "s.tar", [("a.png", b"")]).read_bytes()
        )
        content[124:136] = b"\xff" * 10 + struct.pack(">h", -1024)
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        (tmp_path / "s.tar").write_bytes(bytes(512) + content)
        (tmp_path / "t.tar").write_bytes(content + content)
        found = find_photos([tmp_path / "t.tar"])
        with pytest.raises(ImageError, match="I03"):
            found[-1].read()

    def test_any_bytes_end_without_another_error(self, shard):
        rng = random.Random(1)
        content = shard.read_bytes()
        for _ in range(200):
            damaged = bytearray(content[: rng.randrange(len(content) + 1)] or b"x")
            for _ in range(4):
                place = rng.randrange(min(len(damaged), 1500))
                damaged[place] = rng.randrange(256)
            shard.write_bytes(damaged)
            try:
                for each in find_photos(shard):
                    each.read()
            except ImageError:
                pass

    def test_an_archive_that_is_a_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "a.tar")
        (found,) = find_photos(tmp_path / "a.tar")
        with pytest.raises(ImageError, match=r"I01.*is a pipe"):
            found.read()


class TestParquet:
    @pytest.fixture
    def arrow(self):
        return pytest.importorskip("pyarrow")

    def write(self, arrow, path, columns, **options):
        from pyarrow import parquet

        parquet.write_table(arrow.table(columns), path, **options)
        return path

    @pytest.mark.parametrize("layout", ["struct", "bytes"])
    def test_both_layouts(self, arrow, tmp_path, layout):
        values = [picture(n) for n in range(40)]
        if layout == "struct":
            values = [{"bytes": value, "path": "../x.png"} for value in values]
        columns = {"label": list(range(40)), "image": values}
        path = self.write(arrow, tmp_path / "a.parquet", columns, row_group_size=7)
        found = find_photos(tmp_path)
        assert [each.name for each in found][::39] == ["a.parquet/0", "a.parquet/39"]
        order = list(range(40))
        random.Random(0).shuffle(order)
        for row in [*range(40), *order]:
            assert same(found[row].read(), row)
        assert found[5].origin == f"{path}/5" == str(found[5].read().path)
        with ThreadPoolExecutor(8) as pool:
            photos = list(pool.map(lambda each: each.read(), found))
        assert all(same(photo, row) for row, photo in enumerate(photos))

    def test_rows_in_order_are_read_once(self, arrow, tmp_path):
        from dslo_jax.images import tables

        values = {"image": [picture(n) for n in range(60)]}
        path = self.write(arrow, tmp_path / "a.parquet", values, row_group_size=25)
        rows = tables._Rows(path, "image")
        starts = []
        go_to = rows._go_to
        rows._go_to = lambda row: (starts.append(rows._batches), go_to(row))
        assert [rows.read(n) for n in range(60)] == values["image"]
        assert len(set(map(id, starts[1:]))) == 1  # one iterator from end to end

    def test_a_file_that_was_replaced_is_read_anew(self, arrow, tmp_path):
        for seed in (1, 2):
            path = tmp_path / "a.parquet"
            self.write(arrow, path, {"image": [picture(seed)]})
            os.utime(path, ns=(seed, seed))
            assert same(find_photos(path)[0].read(), seed)

    def test_rows_without_bytes(self, arrow, tmp_path):
        kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
        values = [{"bytes": None, "path": "/etc/x.png"}, None, {"bytes": b"text"}]
        column = arrow.array(values, kind)
        for each in find_photos(
            self.write(arrow, tmp_path / "a.parquet", {"i": column})
        ):
            with pytest.raises(ImageError, match=r"I02.*row \d of column 'i'"):
                each.read()

    def test_the_photo_among_several_columns(self, arrow, tmp_path):
        one, two = [picture(1)], [picture(2)]
        path = tmp_path / "a.parquet"
        self.write(arrow, path, {"annotation": two, "Image": one})
        assert same(find_photos(path)[0].read(), 1)
        self.write(arrow, path, {"left": two, "right": one})
        with pytest.raises(ImageError, match=r"I02.*\(left, right\); call the right"):
            find_photos(path)[0].read()
        audio = [{"bytes": b"sound", "path": "x"}]
        table = arrow.table({"audio": audio, "shot": [{"bytes": one[0], "path": ""}]})
        features = '{"audio": {"_type": "Audio"}, "shot": {"_type": "Image"}}'
        info = {b"huggingface": b'{"info": {"features": %s}}' % features.encode()}
        from pyarrow import parquet

        parquet.write_table(table.replace_schema_metadata(info), path)
        assert same(find_photos(path)[0].read(), 1)

    def test_a_table_without_images(self, arrow, tmp_path):
        path = self.write(arrow, tmp_path / "a.parquet", {"n": [1], "text": ["a"]})
        with pytest.raises(ImageError, match=r"I02.*no column of images among n, text"):
            find_photos(path)[0].read()
        (tmp_path / "b.png").write_bytes(picture(0))
        skipped = []
        found = find_photos(tmp_path, on_skip=lambda p, reason: skipped.append(reason))
        assert [each.name for each in found] == ["b.png"]
        assert skipped == ["it holds no column of images among n, text"]

    def test_damage_is_told(self, arrow, tmp_path):
        path = tmp_path / "a.parquet"
        values = {"image": [encode(noise(40, 60, seed=n), "PNG") for n in range(9)]}
        content = self.write(arrow, path, values).read_bytes()
        for damaged in (b"", b"PAR1", content[:-9], b"PAR1" + content[200:]):
            path.write_bytes(damaged)
            with pytest.raises(ImageError, match=r"I03.*a\.parquet"):
                [each.read() for each in find_photos(path)]

    def test_without_the_extra_the_remedy_is_told(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        (tmp_path / "b.png").write_bytes(picture(0))
        table, photo = find_photos(tmp_path)
        assert same(photo.read(), 0)
        with pytest.raises(ImageError, match=r'I02.*pip install "dslo-jax\[parquet\]"'):
            table.read()


class TestResultsAreNoInput:
    @pytest.fixture
    def tree(self, tmp_path):
        for name in (
            "a.png",
            "sub/b.png",
            "out/a.png/overlay.png",
            "out/a.png/segmentation.json",
            "old/run.json",
            "old/c/overlay.png",
            "other/d.png/segmentation.json",
            "other/d.png/labels.png",
            "other/e.png",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(picture(0))
        return tmp_path

    def names(self, paths, **options):
        skipped = {}
        found = find_photos(
            paths, on_skip=lambda p, reason: skipped.update({p.name: reason}), **options
        )
        return [each.name for each in found], skipped

    def test_a_search_passes_over_them(self, tree):
        names, skipped = self.names(tree, recursive=True, exclude=tree / "out")
        assert names == ["a.png", "other/e.png", "sub/b.png"]
        assert skipped == {
            "out": "the output folder",
            "old": "results of an earlier run, as it holds run.json",
            "d.png": "results of an earlier run, as it holds segmentation.json",
        }

    def test_a_pattern_passes_over_them(self, tree):
        pattern = f"{tree}/**/*.png"
        names, skipped = self.names(pattern, recursive=True, exclude=tree / "out")
        assert names == ["a.png", "other/e.png", "sub/b.png"]
        assert set(skipped) == {"out", "old", "d.png"}

    def test_a_file_that_is_named_itself_is_taken(self, tree):
        named = tree / "out/a.png/overlay.png"
        assert self.names(named, exclude=tree / "out")[0] == ["overlay.png"]

    def test_results_beside_the_photos(self, tree):
        """The same folder for both: the photos are found again, the results are not."""
        (tree / "other/run.json").touch()
        names, skipped = self.names(
            tree / "other", recursive=True, exclude=tree / "other"
        )
        assert names == ["e.png"]
        assert set(skipped) == {"d.png"}

    def test_the_folder_of_another_run(self, tree):
        with pytest.raises(ImageError, match=r"I01.*no photo found"):
            self.names(tree / "old", recursive=True, exclude=tree / "out")
