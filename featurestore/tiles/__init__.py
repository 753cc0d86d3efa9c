"""What the rows of one key within (b, b + width] add up to: kept for a key that is pushed to, and for files that do not change."""
