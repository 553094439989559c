"""Does grulab hold when it is attacked?"""
