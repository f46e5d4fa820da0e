"""The configuration: one YAML file, read strictly into one frozen snapshot."""
