"""What a connection is read from and written to: sockets and TLS over them. Knows no HTTP."""
