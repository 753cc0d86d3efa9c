"""Push: rows are checked, given a known_at, written to the durable log, merged into the records of every view, and acknowledged; they can be taken back."""
