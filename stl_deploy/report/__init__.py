"""Reports: `page` draws one HTML page, `text` tables and sentences for terminals; the rest gathers what they show."""
