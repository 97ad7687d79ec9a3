"""The command line: doctor, lower, plot and bench. The rest of the library imports nothing from here."""
