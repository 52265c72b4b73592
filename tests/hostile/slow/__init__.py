"""Who sends a body, or reads a reply, slowly, while others wait for the room that it has."""
