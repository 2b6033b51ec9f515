"""The Program, a network in discrete time: its nodes, reference run, spike comparison and checks; needs no torch."""
