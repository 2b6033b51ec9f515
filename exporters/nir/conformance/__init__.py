"""The public conformance kit: NIR graphs, inputs and the spikes each dialect expects of them."""
