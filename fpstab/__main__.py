"""`python -m fpstab` is the command `fpstab`."""

from fpstab.cli import main

raise SystemExit(main())
