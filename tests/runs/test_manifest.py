import hashlib

from dslo_jax.runs import digest


def test_files_of_a_cache_are_not_read_again(tmp_path):
    content = b"weights"
    name = hashlib.sha256(content).hexdigest()
    for folder in ("plain", "cached", "blobs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "plain" / "model.safetensors").write_bytes(content)
    blob = tmp_path / "blobs" / name
    blob.write_bytes(content)
    (tmp_path / "cached" / "model.safetensors").symlink_to(blob)
    assert digest([tmp_path / "plain"]) == digest([tmp_path / "cached"])
    blob.write_bytes(b"not read")
    assert digest([tmp_path / "plain"]) == digest([tmp_path / "cached"])


def test_names_and_contents_of_files_count(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = digest([tmp_path])
    assert digest([tmp_path / "a"]) == first
    (tmp_path / "a").write_bytes(b"2")
    second = digest([tmp_path])
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, digest([tmp_path])}) == 3
