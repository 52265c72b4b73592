"""What is remembered for a while, each of limited size. Standard library and trio alone."""
