"""Raw files in, conversations out, with a reason for each row that left."""
