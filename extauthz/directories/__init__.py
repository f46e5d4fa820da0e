"""Directories besides the files: who is known elsewhere, and how far what was heard of them holds."""
