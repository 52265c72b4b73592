"""When agents were heard last: from each worker's memory into the store, and what follows from it for operators."""
