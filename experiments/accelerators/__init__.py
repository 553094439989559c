"""What a device computes, how fast, how many jobs share it, and whether runs on it resume exactly."""
