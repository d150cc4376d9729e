"""One claim a file; a folder is a part of the theory. `theory.claim.registry` finds them."""
