"""What serves: nodes with their workers as processes that can die, and the network before them."""
