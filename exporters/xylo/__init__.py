"""SynSense Xylo: the arguments of the maker's ``config_from_specification``, and our integer model of the chip."""
