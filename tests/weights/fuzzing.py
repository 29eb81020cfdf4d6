"""Seeded damage to small checkpoints of every kind, as a separate program.

Each damaged file must be refused with an error of this package, or be read. If torch
can read it as well, both must give the same tensors. An audit hook watches that nothing
is imported, compiled, started or written. A separate program runs without the shape
checks of the tests, which would take most of the time, and its caller notices a crash
of the interpreter.

    python tests/weights/fuzzing.py FOLDER COUNT SEED
"""

import io
import json
import random
import re
import sys
import time
import warnings
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from flax import serialization
from safetensors.numpy import save

from dslo_jax.errors import CheckpointError
from dslo_jax.weights import open_weights


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3).T, "b": torch.arange(4).half()}
SNIPPETS = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"X\2\0\0\0id\x85R", b"(X\1\0\0\0ao"),
    *(b"r\xff\xff\xff\xff", b"X\xff\xff\xff\x7f", b"\x8a\xff", b"\x95" + b"\xff" * 8),
    *(b"}" * 400, b"]\x94" * 200, b"\x85" * 300, b"(" * 300, b"h\0h\0h\0\x87q\0" * 40),
    *(
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a" * 80,
        b"\xc9\xff\xff\xff\xff\x01",
        b"PK\5\6",
    ),
    *(b"../../x", b"\0" * 16, b"\xff" * 8, (2**63).to_bytes(8, "little")),
)
ORDERS = b"(.0R\x81bQcQhqr}]Xutse)\x85\x86\x87\x93\x94"
# What a pickle does when it is run; a file may be opened, but only for reading.
WATCHED = ("import", "exec", "compile", "pickle.find_class", "subprocess.Popen")
WATCHED_OS = ("os.", "shutil.", "socket.", "ctypes.")
UNKNOWN_TO_TORCH = (
    *("archive", "modules", "flax", "safetensors", "npz", "packed npz"),
)

events: list[str] = []
armed = False


def watch(event: str, arguments: tuple) -> None:
    if not armed:
        return
    writes = event == "open" and arguments[1] not in ("r", "rb", None)
    if event in WATCHED or event.startswith(WATCHED_OS) or writes:
        events.append(f"{event} {arguments!r:.100}")


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 3)
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def torch_file(content: object, *, new: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def npz_file(write: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    write(file, **{key: value.numpy() for key, value in TENSORS.items()})
    return file.getvalue()


def script_file() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Tiny()), file)
    return file.getvalue()


def training() -> dict:
    network = Tiny()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 3,
        "args": Namespace(lr=0.1, names=["a", None]),
        "best": np.float64(1),
        "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()},
        "optimizer": optimizer.state_dict(),
    }


def tree() -> bytes:
    dense = {"kernel": np.ones((2, 3), np.float32), "bias": jnp.ones(3, jnp.bfloat16)}
    return serialization.msgpack_serialize({"params": {"dense": dense}, "step": 3})


def inside(content: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The pickle of a zip file, and what puts another one in its place."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    (name,) = (name for name in entries if name.endswith("/data.pkl"))

    def put(pickled: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as written:
            for key, data in (entries | {name: pickled}).items():
                written.writestr(key, data)
        return file.getvalue()

    return entries[name], put


def seeds() -> dict[str, tuple[bytes, Callable[[bytes], bytes]]]:
    """The files to be damaged, by kind, and the functions that write them."""
    raw = {
        "zip": torch_file(TENSORS),
        "old": torch_file(TENSORS, new=False),
        "old training": torch_file(training(), new=False),
        "archive": script_file(),
        "flax": tree(),
        "safetensors": save({k: v.numpy() for k, v in TENSORS.items()}),
        "npz": npz_file(np.savez),
        "packed npz": npz_file(np.savez_compressed),
    }
    pickles = {
        "pickle": inside(raw["zip"]),
        "training": inside(torch_file(training())),
        "modules": inside(raw["archive"]),
    }
    return {name: (data, bytes) for name, data in raw.items()} | pickles


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to three changes of a file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 64)))
        match rng.randrange(9):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 2 if place < len(changed):
                changed[place] = rng.choice(
                    b"(.0R\x81bQcQhqr}]Xutse)\x85\x86\x87\x93\x94"
                )
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = rng.randbytes(length)
            case 5:
                changed[place:place] = changed[place : place + length]
            case 6:
                changed[place:place] = rng.choice(SNIPPETS)
            case 7:
                changed[place : place + length] = rng.choice((b"\xff", b"\0")) * length
            case 8 if rng.random() < 0.3:
                del changed[place:]
    return bytes(changed)


def read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The code of the refusal, or ``read`` and the tensors."""
    global armed
    armed = True
    try:
        weights = open_weights(path)
        return "read", {key: weights[key] for key in weights}
    except CheckpointError as error:
        return error.code, {}
    finally:
        armed = False


def compare(path: Path, found: dict[str, np.ndarray]) -> str:
    """Compare with what torch reads; what torch refuses cannot be compared."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, weights_only=True)
    except Exception:
        return "alone"
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    for key, value in found.items():
        wanted = content.get(key, content.get(f"module.{key}"))
        assert wanted is not None, key
        assert str(wanted.dtype) == f"torch.{value.dtype.name}", key
        assert wanted.shape == value.shape, key
        plain = wanted.detach().clone(memory_format=torch.contiguous_format)
        assert plain.flatten().view(torch.uint8).numpy().tobytes() == value.tobytes()
    return "as torch"


def most_held() -> int:
    """The most memory held so far, in bytes; zero where the system does not tell."""
    status = Path("/proc/self/status")  # ru_maxrss is inherited from who started this
    if not status.exists():
        return 0
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])


def main(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    path = folder / "damaged"
    outcomes: Counter[str] = Counter()
    bases = seeds()
    for data, make in bases.values():  # what is imported late is imported now
        path.write_bytes(make(data))
        assert read(path)[0] == "read"
    events.clear()
    before = most_held()
    start = time.perf_counter()
    for number in range(count):
        name = list(bases)[number % len(bases)]
        data, make = bases[name]
        path.write_bytes(make(damage(data, rng)))
        try:
            outcome, found = read(path)
            size = sum(value.nbytes for value in found.values())
            assert outcome in ("read", "W03", "W04", "W05"), outcome
            assert size <= 4 * path.stat().st_size
            if found and name not in UNKNOWN_TO_TORCH:
                outcomes[compare(path, found)] += 1
        except BaseException:
            path.rename(folder / f"failed-{seed}-{number}")
            raise
        outcomes[outcome] += 1
    peak = most_held()
    seconds = round(time.perf_counter() - start, 1)
    result = {
        "megabytes": (peak - before) // 1_000_000,
        "seconds": seconds,
        "events": events,
    }
    print(json.dumps(result | {"outcomes": outcomes}))  # noqa: T201


if __name__ == "__main__":
    sys.addaudithook(watch)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
