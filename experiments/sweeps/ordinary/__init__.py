"""The reference that grulab is compared with."""
