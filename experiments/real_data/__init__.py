"""Does the question of the default sweep have an answer on real data, and when is a GRU not the tool?"""
