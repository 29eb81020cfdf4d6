"""Choice of the files that hold the weights of a folder, from their names alone."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dslo_jax.weights.formats import FORMATS


# The order of preference. Both libraries of Hugging Face use the same suffixes.
_FAMILIES = (
    (("model", "diffusion_pytorch_model"), ".safetensors"),
    (("open_clip_model",), ".safetensors"),
    (("flax_model", "diffusion_flax_model"), ".msgpack"),
    (("pytorch_model", "diffusion_pytorch_model"), ".bin"),
    (("open_clip_pytorch_model",), ".bin"),
)
# Suffixes of a file that may have any name, if no other file of the folder has them.
_LONE = tuple(dict.fromkeys(each.lone for each in FORMATS if each.lone))
_PLAIN_FIRST = ("", ".fp16", ".bf16")
_HALF_FIRST = (".fp16", ".bf16", "")
_SHARD = r"-\d{5}-of-\d{5}"
# Other files of a training run, and weights that are not the final average.
_NO_WEIGHTS = re.compile(
    r"optimizer|scheduler|training_args|random_states|rng_state|\bscaler|non_ema", re.I
)


class _Layout(NamedTuple):
    """One pattern for the names of files of weights: a stem, a variant and a suffix."""

    stem: str
    variant: str
    suffix: str

    @property
    def single(self) -> str:
        return f"{self.stem}{self.variant}{self.suffix}"

    @property
    def indices(self) -> tuple[str, ...]:
        """The name of the index today, and that in old versions of diffusers."""
        if self.suffix == ".msgpack":  # names in its index have another spelling
            return ()
        name = f"{self.stem}{self.suffix}"
        return f"{name}.index{self.variant}.json", f"{name}{self.variant}.index.json"

    def is_shard(self, name: str) -> bool:
        stem, variant, suffix = map(re.escape, self)
        both = f"{stem}(?:{variant}{_SHARD}|{_SHARD}{variant}){suffix}"
        return re.fullmatch(both, name) is not None


def choose_files(names: Iterable[str], *, half: bool = False) -> tuple[str, ...]:
    """Choose the files that hold the weights of a network.

    The same function chooses from a folder on disk and from the list of files of a
    repository. The order of preference is: ``model.safetensors`` and
    ``diffusion_pytorch_model.safetensors``, ``open_clip_model.safetensors``,
    ``flax_model.msgpack``, ``pytorch_model.bin`` and ``diffusion_pytorch_model.bin``,
    ``open_clip_pytorch_model.bin``, and a ``.pt`` file of any name if it is the only
    one. Files of safetensors and ``.bin`` may also be an index with shards. The
    variants ``.fp16`` and ``.bf16`` of a name come after the plain one.

    Args:
        names: The file names of one folder, without the folder.
        half: Whether the variants of 16 bits come before the plain file.

    Returns:
        The file; or an index, whose name ends in ``.json``, followed by its shards; or
        nothing if no file has such a name.
    """
    present = set(names)
    for layout in _layouts(half):
        if layout.single in present:
            return (layout.single,)
        for index in layout.indices:
            if index in present:
                return (index, *sorted(filter(layout.is_shard, present)))
    for suffix in _LONE:
        lone = [n for n in present if n.endswith(suffix) and not _NO_WEIGHTS.search(n)]
        if lone:
            return tuple(lone) if len(lone) == 1 else ()
    return ()


def looked_for() -> str:
    """The names that ``choose_files`` looks for, as text for an error."""
    names = [layout.single for layout in _layouts(half=False) if not layout.variant]
    return f"{', '.join(names)} or a single {' or '.join(_LONE)} file"


def _layouts(half: bool) -> Iterator[_Layout]:
    for stems, suffix in _FAMILIES:
        for stem in stems:
            for variant in _HALF_FIRST if half else _PLAIN_FIRST:
                yield _Layout(stem, variant, suffix)
