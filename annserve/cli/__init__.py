"""The command line: every command, and the composition of rooms into programs.

Importing this package imports none of them: the supervisor's process is one of the programs, and stays small.
"""
