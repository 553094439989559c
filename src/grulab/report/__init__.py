"""Reports on runs and sweeps: traces, tables and figures."""
