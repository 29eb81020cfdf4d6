"""Measurements of the whole pipeline: ``dslo bench pipeline`` and ``bench scaling``.

The scenarios have the names of MLPerf. In *SingleStream*, photos come one at a time,
and the time of each is what counts. In *Offline*, all photos are there, and the number
of photos in a second is what counts. Photos are pixels on the host, and results are
labels on the host. A further scenario, *stages*, waits after every stage and gives the
time of each.
"""
