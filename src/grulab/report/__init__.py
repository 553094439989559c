"""What people read: traces, tables and figures."""
