"""`python -m luthier` is the `luthier` command."""

from luthier.cli.main import main

if __name__ == "__main__":
    main()
