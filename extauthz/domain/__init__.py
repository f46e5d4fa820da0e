"""Decisions and the values they work on: no I/O, no clock, no environment, no protobuf."""
