"""`python -m segtrain …` is the same program as `segtrain …`."""

import sys

from segtrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
