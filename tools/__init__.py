"""The `tfn` command line and the tools around it."""
