"""Pages of Parquet files that claim more than there is, and sound ones."""

import io

import pytest

from dslo_jax.errors import ImageError
from dslo_jax.images.parquet_pages import check_pages
from dslo_jax.images.tables import read_value


pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PHOTOS = [bytes([each]) * (100 + 400 * each) for each in range(40)]
# Of a dictionary page: its kind, then 300 and 90 bytes, each written as twice itself.
SIZES = b"\x15\x04\x15\xd8\x04\x15\xb4\x01"
HEAD = SIZES + b"\x4c\x15\x02\x15\x00\x12\x00\x00"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_sound_pages_are_read(tmp_path, version, compression, dictionary):
    column = [{"bytes": each, "path": None} for each in PHOTOS]
    table = pyarrow.table({"n": list(range(40)), "image": column})
    path = tmp_path / "a.parquet"
    options = {"data_page_version": version, "use_dictionary": dictionary}
    options |= {"data_page_size": 1000, "row_group_size": 15, "write_batch_size": 2}
    parquet.write_table(
        table, path, compression=compression, write_page_checksum=True, **options
    )
    for row in (0, 14, 15, 39):
        assert read_value(path, "image", row) == PHOTOS[row]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (b"\x15\x04\x15\xd8\x04\x15\xb6\x01", "a page claims 91 bytes"),
        (b"\x15\x04\x15\xd8\x04\x15\x01", "a page claims -1 bytes"),
        (b"\x15\x04\x15\xfe\xff\xff\xff\x0f\x15\xb4\x01", "claims to hold 2147483647"),
        (b"\x15\x04\x15\x01\x15\xb4\x01", "claims to hold -1"),
        (b"\x15\x04\x15\xd8\x04\x18\xb4\x01", "the header of a page is damaged"),
        (b"\x1c" * 20, "the header of a page is damaged"),
        (b"\x19\xff\xff\xff\x7f", "the header of a page is damaged"),
        (b"\x19\xf1" + b"\xff" * 9 + b"\x7f", "the header of a page is damaged"),
        (b"\x19\xf7" + b"\xff" * 9 + b"\x7f", "the header of a page is damaged"),
    ],
)
def test_claims_are_checked(changed, message):
    content = bytes(7) + HEAD + bytes(90)
    check_pages(io.BytesIO(content), 7, len(content) - 7)
    content = bytes(7) + HEAD.replace(SIZES, changed) + bytes(90)
    with pytest.raises(ValueError, match=message):
        check_pages(io.BytesIO(content), 7, len(content) - 7)


def test_a_page_that_claims_a_gigabyte_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": [PHOTOS[1]] * 3}), path)
    content = path.read_bytes()
    end = content.index(b"\x15", 7)  # of the size without compression
    assert content[4:7] == b"\x15\x04\x15"
    path.write_bytes(content[: end + 1] + b"\x80\x80\x80\x80\x08" + content[end + 3 :])
    with pytest.raises(ImageError, match=r"I03.*a page claims 1073741824 bytes"):
        read_value(path, "image", 0)
