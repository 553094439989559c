"""Does a sweep always finish, and how fast?"""
