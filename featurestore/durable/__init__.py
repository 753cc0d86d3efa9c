"""How anything is written to disk: checksums, locks, owners of folders, temporary files, and what a full or read-only disk says."""
