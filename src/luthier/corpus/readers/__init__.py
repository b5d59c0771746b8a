"""Files in, `(Origin, row)` out: one file a format, and one word for each kind of damage."""
