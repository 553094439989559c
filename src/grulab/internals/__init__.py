"""The private parts of other libraries that grulab uses, one module for each library.

The fast training loop, training/fast_loop.py, subclasses Lightning's private loop and moves its counters; it runs
with tested versions only.

Each module names the version in which its parts were read; tests/test_internals.py names the parts that another
version lacks.
"""
