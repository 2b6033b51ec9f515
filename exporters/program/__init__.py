"""Programs as files: networks that NIR cannot hold."""
