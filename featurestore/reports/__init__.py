"""What people ask afterwards: audit, explain, availability, lineage, simulate, status, verify; no folder of the data path imports them."""
