"""The context of the empty prompt, and where it is kept."""

import numpy as np
import pytest
from checkpoints import diffusion

from dslo_jax import empty_prompt
from dslo_jax.errors import CheckpointError


def _refuse(*_, **__):
    raise AssertionError("the text encoder was loaded")


def test_text_encoder_is_loaded_once(pipeline, cache, monkeypatch):
    folder, _ = pipeline
    first = empty_prompt.load_empty_prompt(folder)
    assert first.shape == (1, 77, 32)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    monkeypatch.setattr(empty_prompt, "load_text_encoder", _refuse)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(folder), first)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, None])
def test_damaged_cache_entry_is_computed_again(pipeline, cache, damage):
    folder, _ = pipeline
    expected = empty_prompt.load_empty_prompt(folder)
    (entry,) = cache.iterdir()
    if damage is None:
        empty_prompt.save_empty_prompt(np.full((1, 77, 32), np.nan), entry)
    else:
        entry.write_bytes(damage)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(folder), expected)
    np.testing.assert_array_equal(empty_prompt._read(entry), expected)


def test_another_tokenizer_is_another_constant(pipeline, tmp_path, cache):
    folder, _ = pipeline
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "text_encoder").symlink_to(folder / "text_encoder")
    diffusion.save_tokenizer(copy / "tokenizer", pad_token="<|endoftext|>")
    first = empty_prompt.load_empty_prompt(folder)
    second = empty_prompt.load_empty_prompt(copy)
    assert len(list(cache.iterdir())) == 2
    assert np.abs(first - second).max() > 0.01


def test_unwritable_cache_is_no_obstacle(pipeline, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DSLO_CACHE", str(blocked / "cache"))
    assert empty_prompt.load_empty_prompt(pipeline[0]).shape == (1, 77, 32)
    assert "not cached" in caplog.text


def test_stored_constant_replaces_the_text_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(empty_prompt, "load_text_encoder", _refuse)
    with pytest.raises(CheckpointError, match="text_encoder") as caught:
        empty_prompt.load_empty_prompt(tmp_path)
    assert caught.value.code == "W01"
    assert str(tmp_path) in str(caught.value)

    path = tmp_path / empty_prompt.FILE_NAME
    context = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    empty_prompt.save_empty_prompt(context, path)
    np.testing.assert_array_equal(empty_prompt.load_empty_prompt(tmp_path), context)

    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError) as caught:
        empty_prompt.load_empty_prompt(tmp_path)
    assert caught.value.code == "W04"
