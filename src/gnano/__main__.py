"""`python -m gnano` is `gnano`: so that torchrun can launch a command by module name."""

from gnano.cli import main

if __name__ == "__main__":
    main()
