"""``python -m dslo_jax``: the command ``dslo``."""

import sys

from dslo_jax.cli import main


sys.exit(main())
