"""``python -m confroute`` is the ``confroute`` command."""

import sys

from confroute.cli import main

if __name__ == "__main__":
    sys.exit(main())
