"""Log-ins and tokens: who is calling."""
