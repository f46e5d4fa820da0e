"""Compiled from protos/ by protos/compile.py; change the .proto file and run `make proto`."""
