"""`python -m launcher`: the same command as `streamrep`."""

import sys

from launcher.main import main

if __name__ == "__main__":
    sys.exit(main())
