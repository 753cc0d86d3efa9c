"""What was applied, version by version, and the plan that leads from one version to the next."""
