"""What the rows of one key within (b, b + hop] come to: kept for a key that is pushed to, and for files that do not change."""
