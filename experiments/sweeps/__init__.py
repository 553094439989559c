"""Does a sweep always finish, and with how much overhead?"""
