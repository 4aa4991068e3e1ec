"""`python -m bns` is the `bns` command."""

from bns.cli import main

if __name__ == "__main__":
    main(prog_name="bns")
