"""What one says to each of the classic daemons, and what each answers, as typed calls."""
