"""``python -m cerewrite``."""

from cerewrite.cli import main

if __name__ == "__main__":
    main()
