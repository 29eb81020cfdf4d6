"""Kill an evaluation again and again: python killed_evaluation.py FOLDER KILLS SEED.

Every child is a process of its own and dies at a random moment. Whenever one lives to
the end, its metrics.json must be that of an evaluation that nothing disturbed.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from stub_sweep import StubSet, StubSweep, evaluate_stub


PHOTOS, BATCH_SECONDS = 60, 0.002
LIVES = 6  # that an evaluation lasts, on average


def start(out):
    """Evaluate in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        samples = StubSet(PHOTOS, broken=["photo 007"])
        evaluate_stub(out, samples, StubSweep(seconds=BATCH_SECONDS), save_labels=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(out):
    """Evaluate to the end; returns the bytes of the metrics."""
    _, status = os.waitpid(start(out), 0)
    assert status == 0, status
    return (out / "metrics.json").read_bytes()


def main(folder, kills, seed):
    rng = random.Random(seed)
    begin = time.monotonic()
    expected = finish(folder / "undisturbed")
    life = (time.monotonic() - begin) / LIVES
    killed, finished = 0, 0
    while killed < kills:
        out = folder / f"run {finished}"
        child = start(out)
        time.sleep(rng.expovariate(1 / life))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            assert status == 0, status
            assert (out / "metrics.json").read_bytes() == expected
            finished += 1
    assert finish(folder / f"run {finished}") == expected
    json.dump({"killed": killed, "finished": finished + 1}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
