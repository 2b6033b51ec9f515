"""Every remedy that the product prints, reached and followed."""
