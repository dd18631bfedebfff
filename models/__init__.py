"""Networks, tasks and data to train them on."""
