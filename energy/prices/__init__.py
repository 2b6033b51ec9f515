"""Price lists, and counts priced by one."""
