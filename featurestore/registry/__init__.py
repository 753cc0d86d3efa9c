"""What was applied, version by version, the plan that leads from one to the next, and the journals of runs and of written frames."""
