"""What a user writes: entities, sources, feature views, on-demand functions and services."""
