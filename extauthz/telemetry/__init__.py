"""What the service tells about itself: metrics and logs, never a key, never a prompt."""
