"""How anything is written to disk, or into a database: checksums, locks, owners of folders, temporary files, and what a full or read-only disk says."""
