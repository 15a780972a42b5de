"""Conformance runners: outside test suites on tfn. `python -m tfn.tools.conformance --help`."""
