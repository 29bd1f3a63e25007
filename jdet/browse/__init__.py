"""Contact sheets of what a network is fed: looked at before a step is paid for."""
