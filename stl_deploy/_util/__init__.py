"""What every room may use: console, files, suggestions; knows nothing of networks."""
