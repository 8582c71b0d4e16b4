"""`python -m whirl`, the form of the command that `torchrun -m` takes."""

from whirl.cli.main import main

if __name__ == "__main__":
    main()
