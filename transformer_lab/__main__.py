"""`python -m transformer_lab` is the command `transformer-lab`."""

from transformer_lab.commands import main

if __name__ == "__main__":
    main()
