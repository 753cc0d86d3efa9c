"""Training frames: the rows of a spine, or every key at some instants, each with the values as of its own instant; manifests."""
