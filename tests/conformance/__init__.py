"""Does a NIR file mean here what it means in the framework that wrote it or reads it? See ``__main__``."""
