"""Put your own definitions here: what `featurestore init` writes, for one."""
