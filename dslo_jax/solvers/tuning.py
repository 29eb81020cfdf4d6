"""Every number that was chosen for speed or memory, with the device it was measured on.

None of them changes what is computed, up to rounding. Where nothing else is said, the
device is a CPU of two cores, a Xeon or an EPYC. Who tunes for another one begins here.
"""

BLOCK_ROWS = 256
"""Rows of the kernel at a time: 4 MiB at N = 4096, 16 MiB at N = 16384 (float32).
Blocks of 128 to 1024 rows take the same time; those of 16 to 64 rows fit the
second-level cache, but take longer to start than they save in reading."""

GATHERED_AT_ONCE = 2**22
"""Entries of rows that are gathered once, 16 MiB: larger buffers come fresh from the
system in every call, which costs more than gathering block by block. Gradients are then
of the size of the rows instead of the affinity."""

MANY = 32
"""Classes from which on a transposed copy of the affinity pays for itself. On the Xeon
it takes 62 ms at N = 4096, and a step of 64 classes then takes 17 ms in place of 26."""

WIDTH = 32
"""Classes that a product with the transposed affinity takes at once: 171 take longer
than 192, so their number is padded to a multiple of this."""

STAGES = (512, 256, 160, 128, 96, 64, 32, 16, 8, 4, 1)
"""Sizes that a batch of classes shrinks to as its members arrive. Each is one more loop
to compile."""

SUMMED_ROWS = 128
"""Rows, at least, whose column sums one product takes. Rows are added up one after
another: thousands of them in float32 are off by 1e-5. In parts they take as long."""

PART = 4096
"""Entries of a row, at most, that one product sums up. They are added in parts as wide
as the vectors of the CPU, exact enough for thousands; more take a tenth longer."""

SHARED, SHARED_CLASS = 17.0, 0.39
"""Microseconds that a row of 4096 patches takes which all classes share, whatever their
number is, and what each class adds. Only the ratios to the next two count."""

OWNED, OWNED_CLASS = 27.0, 0.065
"""The same for a row that a single class owns."""

PAIRS_ON = ("cpu",)
"""Platforms where classes may own rows: only there both ways were measured."""
