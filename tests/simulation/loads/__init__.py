"""Who asks for more, or more at once, than is usual: each with what it and the others may be answered."""
