"""`python -m innerlingua.cli` is the command `innerlingua`, for `accelerate launch -m innerlingua.cli train RECIPE`."""

from innerlingua.cli import main

if __name__ == "__main__":
    main()
