"""Tokens that others sign: the keys of their issuers, and what a signature proves."""
