"""Runs over many photos that may be interrupted at any time and continued."""

from dslo_jax.runs.journal import (
    PHOTO as PHOTO,
    Journal as Journal,
    Key as Key,
    Record as Record,
    check_begun as check_begun,
)
from dslo_jax.runs.lock import only_run as only_run
from dslo_jax.runs.manifest import describe as describe, digest as digest
from dslo_jax.runs.photos import PhotoRun as PhotoRun
from dslo_jax.runs.shards import WHOLE as WHOLE, Shard as Shard
