"""`python -m featurestore`: the same as the command `featurestore`."""

import sys
from pathlib import Path

# Python puts the working directory first, so that a repository's queue.py would be run in place of the standard library's.
# Where the product itself lies there, as in a checkout, it stays.
if sys.path[0] == str(Path.cwd()) and Path(sys.path[0]) != Path(__file__).parents[1]:
    del sys.path[0]

from featurestore.cli import main

main()
