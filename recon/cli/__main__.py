"""``python -m recon.cli``: the command ``recon``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
