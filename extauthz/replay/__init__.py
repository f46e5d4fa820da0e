"""Recorded decisions, decided again by another configuration: `extauthz replay`."""
