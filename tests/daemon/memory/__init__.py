"""What the worker does about its memory."""
