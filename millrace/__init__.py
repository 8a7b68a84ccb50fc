"""What authors of actions and processes import."""
