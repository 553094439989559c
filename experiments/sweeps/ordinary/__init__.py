"""The reference script that grulab is compared with."""
