"""The command line: doctor, lower, plot, bench. Nothing in the library imports it."""
