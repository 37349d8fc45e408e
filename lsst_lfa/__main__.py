"""``python -m lsst_lfa``: the command line, as ``lsst-lfa``."""

import sys

from lsst_lfa._cli import main

if __name__ == "__main__":
    sys.exit(main())
