"""Do sweeps with rungs find what the full grid finds?"""
