"""Training on several ranks: process groups, DDP and FSDP2, and the watchdog for hangs."""
