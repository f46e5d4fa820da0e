"""LiteLLM's own PostgreSQL as a directory: read, and never written."""
