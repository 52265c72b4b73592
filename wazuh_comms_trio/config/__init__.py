"""The configuration: one YAML file, read into frozen models (``models``), with every problem reported at once (``load``)."""
