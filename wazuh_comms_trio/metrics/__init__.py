"""What is counted and measured, for operators: the table of metrics, and plain values that are read when they are asked
for. Anything may count; it imports nothing but the foundation."""
