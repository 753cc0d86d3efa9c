"""get_historical_features: the rows of a spine, each as of its own instant.

spine           what is asked for, checked
historical      the as-of query over it, part by part
snapshot        a spine of every key at one instant
training_frame  the answer: pandas, numpy, Arrow or Parquet
manifest        what it was made from, in the schema's metadata and beside the file
"""
