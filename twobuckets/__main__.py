"""`python -m twobuckets` is the console script."""

from twobuckets.cli import main

main()
