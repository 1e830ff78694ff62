"""What a server does wrong, or as the platform may do it, when a test asks for it: all behind --testing."""
