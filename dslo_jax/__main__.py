"""The command ``dslo``, which is also ``python -m dslo_jax``."""

import sys


def main() -> int:
    """Run ``dslo`` and return the exit code; see ``dslo_jax.cli.main``."""
    try:
        # Here and not above: JAX and others take more than a second to import, and
        # Ctrl-C may come meanwhile.
        from dslo_jax.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
