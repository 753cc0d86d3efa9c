"""`python -m featurestore`: the same as the command `featurestore`."""

import sys
from pathlib import Path

# Python puts the working directory first, so that a repository's queue.py would be run in place of the standard library's.
# It comes last instead; first it stays where the product itself lies there, as in a checkout.
if sys.path[0] == str(Path.cwd()) and Path(sys.path[0]) != Path(__file__).parents[1]:
    sys.path.append(sys.path.pop(0))

from featurestore.cli import main

main()
