"""What the commands do, a file a command. No job imports another: what two of them need is in `shared`."""
