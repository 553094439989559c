"""The parts of other libraries that are not their public interface, one module for each library.

Each says in which version it was read; tests/test_internals.py names the part that is gone from another version.
"""
