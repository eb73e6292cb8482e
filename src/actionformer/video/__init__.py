"""Videos: decoded, looked at by published networks, and written with what was found in them."""
