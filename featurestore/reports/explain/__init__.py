"""explain: why a key has a value at an instant, and what a served request was answered from."""
