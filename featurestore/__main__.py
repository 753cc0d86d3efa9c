"""`python -m featurestore`: the same as the command `featurestore`."""

from featurestore.cli import main

main()
