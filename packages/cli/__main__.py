"""`python -m packages.cli`, the form of the command that `torchrun -m` takes."""

from packages.cli.main import main

if __name__ == "__main__":
    main()
