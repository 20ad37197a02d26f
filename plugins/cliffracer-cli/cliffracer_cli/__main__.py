"""`python -m cliffracer_cli`, the same as `cliffracer`."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
