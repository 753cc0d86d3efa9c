"""What was declared in another feature store, as definitions of this one, with every difference and its cause."""
