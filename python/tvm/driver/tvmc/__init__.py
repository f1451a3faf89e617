"""The familiar name of the command line `tvmc`, and its compile half."""
