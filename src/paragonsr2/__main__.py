"""``python -m paragonsr2``."""

from paragonsr2.cli.main import main

if __name__ == "__main__":
    main()
