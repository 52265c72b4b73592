"""What agents may have of embedded stores, of documents and of events."""
