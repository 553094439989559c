"""Does a search find what a default does not, and does it go on as if it had never been killed?"""
