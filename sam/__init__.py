"""The stack people deploy (the YAML files) and the same stack on this machine (sam.local)."""
