"""What the theorems come to at trained networks: commands that measure, and no claims."""
