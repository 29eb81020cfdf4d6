"""Seeded damage to whatever strangers may give to the package, and what comes of it.

Every input is either read, or refused with a ``DsloError`` whose code is in
``docs/errors.md``. No other exception, no hang, no growing memory; nothing is started,
imported from elsewhere, or written outside the folder of the run.

    PYTHONPATH=tests python -m fuzz photos --inputs 10000
    PYTHONPATH=tests python -m fuzz photos --show 4711 > input

============  ======================================================================
module        what it does
============  ======================================================================
mutation      changes of bytes, of numbers in text, and of values in JSON
target        what a target is: files to damage, and the function that reads them
watch         what the process does meanwhile: events, seconds, memory
__main__      one target in a process of its own, which prints its figures as JSON
others        the targets, one module each
============  ======================================================================

The figures of a million inputs are in ``SECURITY.md``; ``benchmarks/fuzz.py`` measures
them.
"""
