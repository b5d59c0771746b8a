"""The frozen records and Protocols that cross a package border. Imports no torch."""
