"""What a connection is read from and written to: sockets, TLS over them, whose turn it is. Knows no HTTP."""
