"""Commands on their way to agents: long polls, deliveries, and what a poster is told."""
