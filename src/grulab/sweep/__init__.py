"""Many runs as one: what the jobs are, the launcher that runs them, and going on after anything."""
