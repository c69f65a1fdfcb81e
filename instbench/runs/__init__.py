"""Run folders: identity, storage, locking, records and environment."""
