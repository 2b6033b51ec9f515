"""An IntegerGraph as Verilog-2005 for FPGAs: one engine, a program and memories for each network."""
