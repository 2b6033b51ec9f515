"""The page's terms: one sentence each, behind every word that a reader from another field would look up."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    "SNN": "Spiking neural network: neurons send spikes (0 or 1) and keep a potential from step to step.",
    "ANN twin": "The same layers with ReLU instead of spiking neurons, run once per inference.",
    "synop": "Synaptic operation: one spike, or other non-zero input, crossing one synapse.",
    "MAC": "Multiply and accumulate: what an ANN does once per synapse, and an SNN where values are graded.",
    "AC": "Accumulate: an addition without a multiply, enough where only 0 and 1 arrive.",
    "T": "Time steps of one inference.",
    "spike rate": "Spikes per neuron and time step.",
    "dataflow": "How often a weight is fetched from memory, and where sums are kept between additions.",
    "per event": "A weight is fetched for each synop; by the ANN for each MAC.",
    "per step": "A weight is fetched once per time step, for all its synops in it; by the ANN once per inference.",
    "per inference": "A weight is fetched once; all time steps of a layer are worked through before the next layer.",
    "registers": "A sum stays beside the adder; in memory, each addition reads and writes it.",
    "floor": "Power that flows on a ready chip whether or not anything spikes, times the latency.",
    "events": "Energy of synops, neuron updates, spikes and messages on a chip.",
    "neurocores only": "Without the host and without input and output, which often last longer than the cores compute.",
    "energy-delay product": "Energy times latency of one inference: small where a chip is both frugal and fast.",
    "break-even": "The spike rate at which SNN and ANN twin cost the same.",
    "Pareto front": "Points that no other equals or beats in both accuracy and energy.",
    "threshold": "The potential at which a neuron fires.",
    "modelled": "Worked out from counts and prices; not measured on hardware.",
    "simulated": "Run on a simulator of hardware.",
    "measured": "Ran, and was read off.",
    "bracket": "A low and a high end between which the value lies, because something has no published price.",
}
