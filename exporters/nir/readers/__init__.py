"""Model other frameworks' readers of NIR files, and export Programs for one of them."""
