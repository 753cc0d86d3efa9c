"""get_historical_features: the rows of a spine, each with the values as of its own instant."""
