"""Write an IntegerGraph as Verilog-2005 for FPGAs: one engine, with a program and memories for each network."""
