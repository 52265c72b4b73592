"""How requests, events and other programs' documents are written: in forms that mean what ours do, and such as
can't be used."""
