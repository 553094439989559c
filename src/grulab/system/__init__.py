"""What is the operating system's: signals and processes."""
