"""The operators' commands: what they ask a running server, and how they show the answers."""
