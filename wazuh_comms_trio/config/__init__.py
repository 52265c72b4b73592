"""The configuration: one YAML file, read into frozen models, with every problem of the file reported at once."""
