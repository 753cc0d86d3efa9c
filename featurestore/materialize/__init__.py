"""Materialize: what is due of the applied views is asked of the query and written to the online store, the watermark last."""
