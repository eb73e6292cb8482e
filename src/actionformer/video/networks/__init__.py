"""Published networks that make features of clips, in the layout of their published weights."""
