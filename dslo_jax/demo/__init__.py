"""What runs anywhere: a bundled photograph and checkpoints made on the spot."""
