"""What has to hold, by subject. ``service`` has what every world has; a further one needs a switch of the plan."""
