"""Online stores: opaque bytes by key."""
