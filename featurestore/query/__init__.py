"""The one as-of query: what views answer for pairs of key and instant, which training, materialize, audit and explain all ask."""
