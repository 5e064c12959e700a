"""Images of whole cards: packages become a root, a root a disk, a disk what people download."""
