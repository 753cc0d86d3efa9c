"""What people ask afterwards: audit, explain, availability, lineage, simulate, status, verify; no verb imports them."""
