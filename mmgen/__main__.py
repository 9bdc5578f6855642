"""`python -m mmgen` is the `mmgen` command (also for launchers such as `torchrun -m mmgen`)."""

from mmgen.cli.app import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
