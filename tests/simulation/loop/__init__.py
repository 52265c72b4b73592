"""trio's loop on the mock clock, for less: nothing that is here changes what a task sees, nor when."""
