"""Reports: `page` renders one HTML page, `text` renders tables and sentences for terminals."""
