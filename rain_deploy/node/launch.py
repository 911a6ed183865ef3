"""Entry of the shipped bundle (its ``__main__.py``): ``python BUNDLE VERB ARGUMENT…``."""

import sys

from node.cli import main

if __name__ == "__main__":
    sys.exit(main())
