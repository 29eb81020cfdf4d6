"""``python -m dslo_jax.cli``."""

import sys

from dslo_jax.cli import main


sys.exit(main())
