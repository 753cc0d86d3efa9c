"""Flights from New York in 2013: what the demonstration declares, prepares, trains and serves."""
