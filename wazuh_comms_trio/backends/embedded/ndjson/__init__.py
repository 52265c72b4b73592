"""The embedded engine: events in rotated segment files within a quota, each record with its checksum."""
