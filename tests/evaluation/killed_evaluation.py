"""Kill an evaluation again and again: python killed_evaluation.py FOLDER KILLS SEED.

Every child is a process of its own and dies at a random moment. Whenever one lives to
the end, its metrics.json must be that of an evaluation that nothing disturbed. At the
end, each of three shards is killed once and goes on, and their sum must be the same.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from stub_sweep import CELLS, CIRCUMSTANCES, CONFIG, StubSet, StubSweep

from dslo_jax.evaluation import Journal, evaluate, merge, shard_samples
from dslo_jax.evaluation.evaluator import JOURNAL
from dslo_jax.evaluation.sweeps.manifest import header_of
from dslo_jax.runs import WHOLE, Shard


PHOTOS, BATCH_SECONDS = 60, 0.002
LIVES = 6  # that an evaluation lasts, on average


SAMPLES = StubSet(PHOTOS, broken=["photo 007"])


def start(out, shard=WHOLE):
    """Evaluate in a child; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        header = header_of(SAMPLES, CONFIG, CIRCUMSTANCES, shard)
        journal = Journal(out / shard.file(JOURNAL), header)
        sweep = StubSweep(seconds=BATCH_SECONDS)
        part = shard_samples(SAMPLES, shard, sweep.batch_size)
        evaluate(sweep, part, CELLS, journal, out, shard=shard, save_labels=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def finish(out):
    """Evaluate to the end; returns the bytes of the metrics."""
    _, status = os.waitpid(start(out), 0)
    assert status == 0, status
    return (out / "metrics.json").read_bytes()


def merged(out, count):
    """Kill every shard in its middle, finish it, and merge; returns the bytes."""
    for shard in (Shard(index, count) for index in range(count)):
        child = start(out, shard)
        journal = out / shard.file(JOURNAL)
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert not (out / shard.file("metrics.json")).exists()
        _, status = os.waitpid(start(out, shard), 0)
        assert status == 0, status
    merge(SAMPLES, CELLS, header_of(SAMPLES, CONFIG, {}), out)
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
    assert merged(folder / "shards", 3) == expected
    json.dump({"killed": killed, "finished": finished + 1}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
