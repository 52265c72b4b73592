"""How requests and events are written: in forms that mean what ours do, and such as can't be served."""
