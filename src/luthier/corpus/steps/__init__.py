"""The steps that rows go through, one file each: settings, and a pure function of columns."""
