"""The formats on the wire as pure code: bytes in, values out. Standard library only, no I/O."""
