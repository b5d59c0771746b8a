"""What the steps know of text: its damage, its code, its scripts. Functions of strings only."""
