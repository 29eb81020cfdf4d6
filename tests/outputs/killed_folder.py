"""Kill the writing of a result folder at each of its steps, and print what is left.

A child process is forked for each step. It ends without any clean-up, as with kill -9,
just before the step, or half-way through if the step writes bytes.
"""

import json
import os
import sys
from pathlib import Path

from dslo_jax.outputs import write_folder


OLD = {"labels.png": b"old labels", "maps.npz": b"old maps"}
NEW = {"labels.png": b"new labels", "segmentation.json": b"{}"}
NEXT = {"overlay.jpg": b"next"}
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open", "os.listdir"}


def write_and_die(folder, step):
    """Write ``NEW``; die at the given step, counted from 0."""
    left = step
    write_bytes, fsync = Path.write_bytes, os.fsync

    def count(half=lambda: None):
        nonlocal left
        if left == 0:
            half()
            os._exit(9)
        left -= 1

    def counted_write(path, content):
        count(lambda: write_bytes(path, content[: len(content) // 2]))
        return write_bytes(path, content)

    def counted_fsync(file):
        count()
        fsync(file)

    Path.write_bytes, os.fsync = counted_write, counted_fsync
    sys.addaudithook(lambda event, _: count() if event in EVENTS else None)
    write_folder(folder, NEW)
    os._exit(0)


def content(folder):
    """Name and text of each file; ``None`` if there is no folder."""
    if not folder.is_dir():
        return None
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def main(root):
    """Print for each step what has the name, what is hidden, and what is left then."""
    report = []
    for first in (True, False):
        for step in range(1000):
            home = root / f"{first}-{step}"
            folder = home / "cat.jpg"
            home.mkdir()
            if not first:
                write_folder(folder, OLD)
            child = os.fork()
            if child == 0:
                write_and_die(folder, step)
            died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            found = content(folder)
            hidden = [content(path) for path in home.iterdir() if path != folder]
            write_folder(folder, NEXT)
            after = {path.name: content(path) for path in home.iterdir()}
            report.append([first, died, found, hidden, after])
            if not died:
                break
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
