"""The private parts of other libraries that grulab uses, one module for each library.

Each module names the version in which its parts were read; tests/test_internals.py names the parts that another
version lacks.
"""
