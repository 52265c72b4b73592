"""The composition root: processes, listeners, signals, logs. Whatever a program is put together of comes in."""
