"""The run folder. Standard library and YAML only: it is imported before torch."""
