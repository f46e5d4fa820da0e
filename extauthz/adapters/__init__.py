"""Between the outside's messages and the gate's own values."""
