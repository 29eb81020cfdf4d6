"""Which part of the photos a process takes, as it is told or as its launcher says."""

import os
import subprocess
import sys

import pytest

from dslo_jax.errors import OptionError
from dslo_jax.runs import WHOLE, Shard


ARRAY = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "7",
    "SLURM_ARRAY_TASK_COUNT": "8",
}
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/0", "0/2/3"])
def test_a_shard_that_does_not_exist(text):
    with pytest.raises(OptionError, match=r"O01.*0/4.*auto"):
        Shard.of(text)
    assert Shard.of("1/3") == Shard(1, 3)


def test_whole_batches_are_taken():
    items = list("abcdefghijk")
    parts = [Shard(index, 3).part_of(items, 2) for index in range(3)]
    assert parts == [list("abgh"), list("cdij"), list("efk")]
    assert WHOLE.part_of(items, 2) == items
    assert Shard(6, 7).part_of(items, 2) == []  # more parts than batches


def test_files_of_a_part_have_names_of_their_own():
    assert Shard(1, 4).file("journal.jsonl") == "journal-1of4.jsonl"
    assert WHOLE.file("journal.jsonl") == "journal.jsonl"


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        (SRUN, "1/2"),
        (ARRAY, "3/8"),
        ({**ARRAY, **SRUN}, "7/16"),  # two tasks in each of eight jobs
        (TORCHRUN, "1/2"),
        ({**SRUN, **TORCHRUN}, "1/2"),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, "2/3"),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c,d"}, "1/4"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "0/1"),
    ],
)
def test_the_launcher_tells_the_shard(surroundings, expected):
    assert Shard.of("auto", surroundings).label == expected


@pytest.mark.parametrize(
    ("surroundings", "code", "words"),
    [
        ({}, "O05", "srun.*--shard INDEX/COUNT"),
        # A batch script without srun is one process, whatever SLURM_NTASKS says.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "O05", "srun"),
        # A slice of one host: other machines may work beside it.
        ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, "O05", "srun"),
        ({**SRUN, "RANK": "0", "WORLD_SIZE": "2"}, "O01", r"1/2 \(SLURM\), 0/2"),
        ({"RANK": "two", "WORLD_SIZE": "2"}, "O01", "RANK/WORLD_SIZE is 'two'/'2'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "O01", "is '2'/'2'"),
        # Some tasks of an array, as they are given to repeat them.
        (
            {**ARRAY, "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"},
            "O01",
            r"2 tasks from 3 to 7.*SLURM_ARRAY_TASK_ID",
        ),
        ({**ARRAY, "SLURM_ARRAY_TASK_COUNT": "5"}, "O01", "5 tasks from 0 to 7"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "O01", "expected all from 0"),
    ],
)
def test_a_launcher_that_does_not_tell_it(surroundings, code, words):
    with pytest.raises(OptionError, match=f"(?s){code}.*{words}"):
        Shard.of("auto", surroundings)


def test_jax_distributed_tells_the_shard_once_it_is_initialized():
    code = """
import socket, jax
from dslo_jax.runs import Shard
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
jax.distributed.initialize(f"localhost:{port}", num_processes=1, process_id=0)
print(Shard.of("auto", {}).label)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert finished.stdout.split() == ["0/1"], finished.stderr
