"""The engines that move bytes: they take a client, never a session."""
