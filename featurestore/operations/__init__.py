"""The verbs, one a file. `featurestore.store` gives them their public names."""
