"""``python -m streamlens``: the command line where the ``streamlens`` script is not on the path."""

from streamlens.cli import main

if __name__ == "__main__":
    main()
