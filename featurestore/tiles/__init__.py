"""What the rows of one key within (start, start + hop] add up to: kept for a key that is pushed to, and for files that do not change."""
