"""lineage: from source columns through views, functions and services to training frames and serving."""
