"""Results that are kept on disk between runs: compiled programs, features of names."""

from dslo_jax.cache.compiled import keep_programs as keep_programs
from dslo_jax.cache.names import NameStore as NameStore
