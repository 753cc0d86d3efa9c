"""What of a repository is run when it is opened: its files of definitions, and nothing else."""
