"""How much the documents in ``state.db`` take, counted by the file itself, and how much they may."""
