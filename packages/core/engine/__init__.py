"""The one loop and what every trainer shares."""
