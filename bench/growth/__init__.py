"""How costs grow: with documents, agents and commands, on embedded backends."""
