"""The serving log: what was served, in segments of an hour, merged and deleted as they age."""
